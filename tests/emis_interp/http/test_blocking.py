"""Waiting for asynchronous work, without an event loop and within one."""

import asyncio
from collections.abc import Callable

import pytest

from emis_interp.http.blocking import wait_for


async def add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def fail() -> int:
    await asyncio.sleep(0)
    raise LookupError("planted")


def alone(work: Callable[[], int]) -> int:
    return work()


def within_a_loop(work: Callable[[], int]) -> int:
    async def notebook() -> int:
        return work()

    return asyncio.run(notebook())


@pytest.mark.parametrize("call", [alone, within_a_loop])
def test_the_result_and_the_error_are_those_of_the_work(call: Callable[[Callable[[], int]], int]) -> None:
    assert call(lambda: wait_for(add(2, 3))) == 5
    with pytest.raises(LookupError, match="planted"):
        call(lambda: wait_for(fail()))


def test_work_that_is_interrupted_within_a_loop_tidies_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def long() -> None:
        seen.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("tidied up")

    submit = asyncio.run_coroutine_threadsafe

    def interrupted(work: object, loop: asyncio.AbstractEventLoop) -> object:
        future = submit(work, loop)  # pyright: ignore[reportArgumentType]

        class Interrupted:
            cancel = staticmethod(future.cancel)

            def result(self) -> None:
                while not seen:
                    pass
                raise KeyboardInterrupt

        return Interrupted()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        within_a_loop(lambda: wait_for(long()) or 0)
    assert seen == ["began", "tidied up"]
