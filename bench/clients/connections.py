"""Work that is shared out to connections, each in a thread of its own, which does little but wait in the kernel."""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

WorkT_contra = TypeVar("WorkT_contra", contravariant=True)
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Connection(Protocol[WorkT_contra, AnswerT_co]):
    """One connection. `closed` where it takes no more."""

    closed: bool

    def ask(self, work: WorkT_contra) -> AnswerT_co:
        """Sends, and waits for the answer."""

    def close(self) -> None:
        """Hangs up."""


def share_out(
    work: Sequence[WorkT_contra], connect: Callable[[], Connection[WorkT_contra, AnswerT_co]], connections: int
) -> Sequence[AnswerT_co]:
    """The answers, in order. Each connection takes the next piece of work when it is done with one. Raises what the
    first to fail raised.
    """
    answers: dict[int, AnswerT_co] = {}
    failures: list[Exception] = []
    waiting = iter(range(len(work)))

    def serve() -> None:
        connection: Connection[WorkT_contra, AnswerT_co] | None = None
        try:
            for number in waiting:
                if failures:
                    break
                if connection is None or connection.closed:
                    connection = connect()
                answers[number] = connection.ask(work[number])
        except Exception as failure:  # noqa: BLE001 - it is raised below
            failures.append(failure)
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=serve) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [answers[number] for number in range(len(work))]
