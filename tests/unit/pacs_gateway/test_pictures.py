"""Pictures of studies, and when one that was made before is shown again."""

from dataclasses import replace

import pytest

from pacs_gateway.use_cases import pictures
from pacs_gateway.use_cases.pictures import Pictures
from service_runtime.errors import Reason
from tests.unit.pacs_gateway.fakes import JONES, World, file_of, orthanc_away, refused, tags_of
from tests.unit.pacs_gateway.hooks import raising


def put_series(world: World, number: int, instances: int) -> list[str]:
    """A series of the study 1.2; the ids of its instances in order."""
    of_series = {"series_number": str(number), "series_instance_uid": f"1.2.{number}"}
    return [
        world.pacs.put(
            file_of(
                tags_of(
                    study_instance_uid="1.2", sop_instance_uid=f"1.2.{number}.{n}", instance_number=str(n), **of_series
                )
            )
        ).orthanc_id
        for n in range(instances)
    ]


async def test_the_picture_is_the_middle_instance_of_the_first_series_that_has_one(world: World) -> None:
    """Series that cannot be shown are passed over; of the first that can, the middle instance is shown."""
    put_series(world, 1, 3)
    shown = put_series(world, 2, 5)
    world.pacs.pictures = {key: f"png {n}".encode() for n, key in enumerate(shown)}
    world.pacs.pictures |= dict.fromkeys(put_series(world, 3, 3), b"later")
    assert (await world.pictures.of_study("1.2")).png == b"png 2"


async def test_a_picture_is_tagged_by_its_content(world: World) -> None:
    """The same picture has the same entity tag, another one another; it is a strong, quoted tag."""
    (key,) = put_series(world, 1, 1)
    tags = []
    for png in (b"one", b"one", b"two"):
        world.pacs.pictures = {key: png}
        tags.append((await Pictures(pacs=world.pacs, max_bytes=0).of_study("1.2")).etag)
    assert tags[0] == tags[1] != tags[2]
    assert tags[0].startswith('"')
    assert tags[0].endswith('"')


async def test_a_study_that_cannot_be_shown_has_no_picture(world: World) -> None:
    """No picture is told apart from no study."""
    put_series(world, 1, 2)
    with refused(Reason.THUMBNAIL_NOT_AVAILABLE):
        await world.pictures.of_study("1.2")
    with refused(Reason.STUDY_NOT_FOUND):
        await world.pictures.of_study("1.3")


async def test_the_search_for_a_picture_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study of very many series that cannot be shown does not keep the PACS busy."""
    monkeypatch.setattr(pictures, "_SERIES_TRIED", 4)
    for number in range(10):
        put_series(world, number, 1)
    with refused(Reason.THUMBNAIL_NOT_AVAILABLE):
        await world.pictures.of_study("1.2")
    assert world.pacs.hooks.passed["picture"] == 4


async def test_a_picture_without_orthanc_is_an_error(world: World) -> None:
    """Orthanc away does not mean that there is nothing to show."""
    put_series(world, 1, 1)
    world.pacs.hooks.at("picture", raising(orthanc_away))
    with refused(Reason.ORTHANC_UNAVAILABLE):
        await world.pictures.of_study("1.2")


async def test_a_picture_is_made_once_and_seen_to_be_good_by_two_questions(world: World) -> None:
    """As long as nothing comes into the PACS, it is asked for its log and for the instance, and for nothing else."""
    (key,) = put_series(world, 1, 1)
    world.pacs.pictures = {key: b"png"}
    first = await world.pictures.of_study("1.2")
    world.pacs.hooks.passed.clear()
    for _ in range(3):
        assert await world.pictures.of_study("1.2") == first
    assert world.pacs.hooks.passed == {"last_change": 3, "noted": 3}


async def test_a_picture_is_not_made_again_where_something_else_came(world: World) -> None:
    """What comes into the PACS has the study looked for again; its picture is good where its instance is the same."""
    (key,) = put_series(world, 1, 1)
    world.pacs.pictures = {key: b"png"}
    first = await world.pictures.of_study("1.2")
    world.pacs.put(file_of(tags_of(study_instance_uid="1.3")))
    assert await world.pictures.of_study("1.2") == first
    assert world.pacs.hooks.passed["find_studies"] == 2
    assert world.pacs.hooks.passed["picture"] == 1
    await world.pictures.of_study("1.2")
    assert world.pacs.hooks.passed["find_studies"] == 2


async def test_a_picture_of_what_was_replaced_is_never_shown(world: World) -> None:
    """Another content under the same identifiers has another picture, also where nothing else tells of it."""
    (key,) = put_series(world, 1, 1)
    for number in range(3):
        world.pacs.held[key] = replace(world.pacs.held[key], content=b"content %d" % number)
        world.pacs.pictures = {key: b"png %d" % number}
        assert (await world.pictures.of_study("1.2")).png == b"png %d" % number


async def test_a_picture_that_was_replaced_while_it_was_made_is_made_again(world: World) -> None:
    """A picture is never kept under the digest of another content than its own."""
    (key,) = put_series(world, 1, 1)
    world.pacs.pictures = {key: b"old"}

    async def overwrite() -> None:
        world.pacs.held[key] = replace(world.pacs.held[key], content=b"new")
        world.pacs.pictures = {key: b"new"}

    world.pacs.hooks.at("picture", overwrite)
    await world.pictures.of_study("1.2")
    await world.pictures.of_study("1.2")
    assert world.pacs.hooks.passed["picture"] == 2


async def test_a_picture_of_a_deleted_study_is_never_shown(world: World) -> None:
    """A study that is gone is not found, though its picture is kept; nor is one picked where two have the UID."""
    (key,) = put_series(world, 1, 1)
    world.pacs.pictures = {key: b"png"}
    await world.pictures.of_study("1.2")
    held = world.pacs.held.pop(key)
    with refused(Reason.STUDY_NOT_FOUND):
        await world.pictures.of_study("1.2")
    world.pacs.held[key] = held
    await world.pictures.of_study("1.2")
    world.pacs.put(file_of(tags_of(JONES, study_instance_uid="1.2")))
    with refused(Reason.STUDY_AMBIGUOUS):
        await world.pictures.of_study("1.2")


async def test_without_a_log_of_changes_the_study_is_looked_for_each_time(world: World) -> None:
    """Where Orthanc cannot tell whether anything came, only the making of the picture is saved."""
    (key,) = put_series(world, 1, 1)
    world.pacs.pictures = {key: b"png"}
    world.pacs.change = 0
    for _ in range(2):
        await world.pictures.of_study("1.2")
    assert world.pacs.hooks.passed["find_studies"] == 2
    assert world.pacs.hooks.passed["picture"] == 1


async def test_only_so_much_is_kept_of_pictures(world: World) -> None:
    """Past the bound, the pictures that nobody asked for the longest are made again; a huge one always is."""
    some = Pictures(pacs=world.pacs, max_bytes=2 * 10_000)
    for uid, size in (("1.1", 8000), ("1.2", 8000), ("1.3", 8000), ("1.4", 20_000)):
        world.pacs.pictures[world.pacs.put(file_of(tags_of(study_instance_uid=uid))).orthanc_id] = b"x" * size

    async def made(uid: str) -> int:
        world.pacs.hooks.passed.clear()
        await some.of_study(uid)
        return world.pacs.hooks.passed["picture"]

    assert [await made(uid) for uid in ("1.1", "1.2", "1.1", "1.2", "1.3")] == [1, 1, 0, 0, 1]
    assert [await made(uid) for uid in ("1.2", "1.3", "1.1")] == [0, 0, 1]
    assert [await made(uid) for uid in ("1.4", "1.4", "1.1")] == [1, 1, 0]
