"""python -m pacs_gateway.cli: sends DICOM files and CDs to a gateway.

Exit status: 0 all is stored, 1 some of it is not, 2 nothing could be sent.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as ProgressBar

from pacs_gateway.cli.files import Kind, Progress, files_of_cd, find_files, read, zipped
from pacs_gateway.cli.outcomes import (
    ALL_STORED,
    NOT_POSSIBLE,
    SKIPPED,
    SOME_FAILED,
    Outcome,
    exit_code,
    printable,
    show,
)
from pacs_gateway.cli.sending import Gateway, NotPossibleError, Sending, Target, Told, connected
from pacs_gateway.cli.sessions import SessionUpload, write_receipt
from pacs_gateway.domain.media import is_directory
from pacs_gateway.domain.upload import OnConflict, PatientMatch, UploadSource


class BrokenOffError(Exception):
    """Not everything is stored, and it can be gone on with. The text is for people."""


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


Where = Annotated[str, typer.Option("--target", envvar="RIS_TARGET", help="host:port of the gateway, or of its Envoy")]
Token = Annotated[
    str, typer.Option(envvar="RIS_TOKEN", help="the bearer token; others on this machine see it in a command line")
]
TokenFile = Annotated[Path | None, typer.Option(help="a file that holds the token", dir_okay=False, exists=True)]
Tls = Annotated[bool, typer.Option("--tls", help="speak TLS, and trust the system's certificates")]
CaFile = Annotated[Path | None, typer.Option(help="trust these (PEM) in their place", dir_okay=False, exists=True)]
Patient = Annotated[str, typer.Option(help="the RIS's patient (UUID); else found by the PatientID of each file")]
Order = Annotated[str, typer.Option(help="the RIS's order (UUID); else found by the AccessionNumber of each file")]
MatchOption = Annotated[
    PatientMatch | None, typer.Option(help="what to do with files of another patient than --patient")
]
Conflict = Annotated[
    OnConflict | None, typer.Option("--on-conflict", help="what to do with other content of what the PACS holds")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="PATH=VALUE to set in each file; may be repeated")]
Remove = Annotated[list[str] | None, typer.Option(help="PATH to remove from each file; may be repeated")]
ShowPatients = Annotated[bool, typer.Option("--show-patients", help="show whose studies they are")]
ShowAll = Annotated[bool, typer.Option("--all-files", help="show each file, also those that are stored")]


@app.command()
def upload(
    *,
    paths: Annotated[list[Path], typer.Argument(help="files, folders and ZIP archives", exists=True)],
    target: Where = "localhost:8000",
    token: Token = "",
    token_file: TokenFile = None,
    tls: Tls = False,
    ca_file: CaFile = None,
    patient: Patient = "",
    order: Order = "",
    match: MatchOption = None,
    source: Annotated[UploadSource | None, typer.Option(help="where the files come from")] = None,
    conflict: Conflict = None,
    edits: Set = None,
    remove: Remove = None,
    everything: Annotated[bool, typer.Option("--everything", help="send what does not look like DICOM, too")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="how many files at once")] = 4,
    retries: Annotated[int, typer.Option(min=0, max=20, help="how often to try a file again")] = 3,
    in_session: Annotated[bool, typer.Option("--session", help="send in a session, and get a receipt")] = False,
    resume: Annotated[str, typer.Option(help="go on with this session (UUID), which broke off")] = "",
    receipt: Annotated[
        Path | None, typer.Option(help="where the receipt goes; else receipt-SESSION.jws, here", dir_okay=False)
    ] = None,
    show_patients: ShowPatients = False,
    show_all: ShowAll = False,
) -> None:
    """Store files. Those that are stored already count as stored: after a failure, just run it again.

    With --session the gateway is told first what is to come, and gives a signed receipt when all of it is stored; one
    that breaks off goes on with --resume, and the same files and edits.
    """
    if resume and (patient or order or match or conflict or source):
        raise _usage("--patient, --order, --match, --on-conflict and --source are the session's: leave them out.")
    options = _options(
        patient=patient, order=order, match=match, conflict=conflict, source=source, edits=edits, remove=remove
    )
    try:
        found = find_files(paths, everything=everything)
    except OSError as error:
        raise _usage(f"{error.filename} cannot be read.") from None

    in_session = in_session or bool(resume)
    if in_session and any(file.kind is Kind.ZIP for file in found.files):
        raise _usage("A session takes no archives from here: unpack them first.")

    async def send(gateway: Gateway, moved: Progress, told: Told) -> None:
        for file in found.passed_over:
            told(
                Outcome(file.name, SKIPPED, message="It does not look like DICOM; --everything sends it all the same.")
            )
        if in_session:
            await _send_in_session(SessionUpload(gateway, found.files, moved, told, _tell_session, resume), receipt)
        else:
            await gateway.send_all(found.files, moved, told)

    _run(
        _target(target, token, token_file, ca_file, tls=tls),
        Sending(options, parallel, retries),
        send,
        # In a session each file is read twice.
        size_bytes=sum(file.size_bytes for file in found.files) * (1 + in_session),
        show_patients=show_patients,
        show_all=show_all,
    )


@app.command("import-cd")
def import_cd(
    *,
    path: Annotated[Path, typer.Argument(help="the folder of a CD, or a ZIP archive of it", exists=True)],
    target: Where = "localhost:8000",
    token: Token = "",
    token_file: TokenFile = None,
    tls: Tls = False,
    ca_file: CaFile = None,
    patient: Patient = "",
    order: Order = "",
    match: MatchOption = None,
    conflict: Conflict = None,
    edits: Set = None,
    remove: Remove = None,
    show_patients: ShowPatients = False,
    show_all: ShowAll = False,
) -> None:
    """Store the files of a CD, and see by its DICOMDIR that they are all there."""
    options = _options(
        patient=patient,
        order=order,
        match=match,
        conflict=conflict,
        source=UploadSource.CD_IMPORT,
        edits=edits,
        remove=remove,
    )
    try:
        files = files_of_cd(path) if path.is_dir() else find_files([path]).files
    except OSError as error:
        raise _usage(f"{error.filename} cannot be read.") from None
    if path.is_dir() and not any(is_directory(file.name) for file in files):
        _warn("There is no DICOMDIR: nothing says whether these are all files.")
    if not path.is_dir() and files[0].kind is not Kind.ZIP:
        raise _usage("It is neither a folder nor a ZIP archive.")

    async def send(gateway: Gateway, moved: Progress, told: Told) -> None:
        pieces = zipped(files, moved) if path.is_dir() else read(files[0], moved)
        await gateway.send_archive(path.name or "CD", pieces, told)

    _run(
        _target(target, token, token_file, ca_file, tls=tls),
        Sending(options),
        send,
        size_bytes=sum(file.size_bytes for file in files),
        show_patients=show_patients,
        show_all=show_all,
    )


def _run(
    target: Target,
    sending: Sending,
    send: Callable[[Gateway, Progress, Told], Awaitable[None]],
    *,
    size_bytes: int,
    show_patients: bool,
    show_all: bool,
) -> None:
    """Sends, shows how it goes and what came of it, and ends the command."""
    errors, console = Console(stderr=True), Console()
    outcomes: list[Outcome] = []
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = ProgressBar(*columns, console=errors, transient=True, disable=not errors.is_terminal)

    async def work() -> None:
        task = bar.add_task("", total=size_bytes)
        async with connected(target, sending) as gateway:
            await send(gateway, lambda size: bar.advance(task, size), outcomes.append)

    failure, status = "", ALL_STORED
    with bar:
        try:
            asyncio.run(work())
        except NotPossibleError as error:
            failure, status = str(error), NOT_POSSIBLE
        except BrokenOffError as error:
            failure, status = str(error), SOME_FAILED
        except KeyboardInterrupt:
            failure, status = "Broken off. Run it again to go on.", SOME_FAILED
    if outcomes:
        show(outcomes, console, show_patients=show_patients, show_all=show_all)
    if failure:
        _warn(failure)
    raise typer.Exit(status or exit_code(outcomes))


async def _send_in_session(upload: SessionUpload, path: Path | None) -> None:
    """Sends the files, and writes the receipt to the path. Raises BrokenOffError once there is a session to resume."""
    try:
        receipt = await upload.run()
    except NotPossibleError as error:
        if not upload.session_id:
            raise
        raise BrokenOffError(f"{error}\n{_how_to_resume(upload)}") from None
    if not receipt:
        raise BrokenOffError(f"The session is not complete. {_how_to_resume(upload)}")
    path = path or Path(f"receipt-{upload.session_id}.jws")
    try:
        write_receipt(path, receipt)
    except OSError:
        raise BrokenOffError(f"{path} cannot be written. {_how_to_resume(upload)}") from None
    Console().print(printable(f"Receipt of session {upload.session_id}: {path}"), highlight=False, soft_wrap=True)


def _how_to_resume(upload: SessionUpload) -> str:
    return f"Go on with the same files and edits, and --resume {upload.session_id}"


def _tell_session(session_id: str) -> None:
    _warn(f"Session {session_id}")


def _options(
    *,
    patient: str,
    order: str,
    match: PatientMatch | None,
    conflict: OnConflict | None,
    source: UploadSource | None,
    edits: list[str] | None,
    remove: list[str] | None,
) -> dict[str, Any]:
    """The fields of UploadRequest, and as well of UploadMultipleRequest, that are set."""
    options = {
        "patient_id": patient,
        "order_id": order,
        "patient_match": match.value if match else "",
        "on_conflict": conflict.value if conflict else "",
        "upload_source": source.value if source else "",
        "set": edits or [],
        "remove": remove or [],
    }
    return {name: value for name, value in options.items() if value}


def _target(address: str, token: str, token_file: Path | None, ca_file: Path | None, *, tls: bool) -> Target:
    if token_file is not None:
        token = token_file.read_text().strip()
    if not token:
        raise _usage("A token is needed: --token-file, --token or RIS_TOKEN.")
    return Target(address, token, tls=tls or ca_file is not None, ca_file=ca_file)


def _usage(message: str) -> typer.Exit:
    _warn(message)
    return typer.Exit(NOT_POSSIBLE)


def _warn(message: str) -> None:
    Console(stderr=True).print(printable(message), highlight=False)


if __name__ == "__main__":
    app()
