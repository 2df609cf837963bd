"""Turns asynchronous work, and the asynchronous client of a chat API, into functions that wait for what comes of it."""

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from openai import AsyncOpenAI

from emis_interp.http.chat_api import ChatApi

T = TypeVar("T")
_PATIENCE_S = 10.0


class BlockingApi:
    """One client on an event loop in a thread of its own, begun with the first request and ended with this object."""

    def __init__(self, api: ChatApi) -> None:
        self.api = api
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: AsyncOpenAI | None = None

    def ask(self, body: Mapping[str, Any]) -> bytes:
        """`ChatApi.ask`, with the same errors."""
        with self._lock:
            if self._loop is None:
                self._loop, self._client = self._begin()
        assert self._client is not None
        return _wait(self._loop, self.api.ask(self._client, body))

    def _begin(self) -> tuple[asyncio.AbstractEventLoop, AsyncOpenAI]:
        loop, connection = asyncio.new_event_loop(), self.api.connect()
        threading.Thread(target=_run, args=(loop,), daemon=True, name="chat API").start()
        client = _wait(loop, connection.__aenter__())
        weakref.finalize(self, _end, loop, connection)
        return loop, client


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """What comes of asynchronous work; also for a caller within a running event loop (a notebook), which stands still meanwhile."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    loop, ended = asyncio.new_event_loop(), threading.Event()

    async def to_its_end() -> T:
        try:
            return await work
        finally:
            ended.set()

    threading.Thread(target=_run, args=(loop,), daemon=True, name="asynchronous work").start()
    future = asyncio.run_coroutine_threadsafe(to_its_end(), loop)
    try:
        return future.result()
    finally:  # also on Ctrl-C, after which the work tidies up
        future.cancel()
        ended.wait(_PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, connection: AbstractAsyncContextManager[AsyncOpenAI]) -> None:
    async def close() -> None:
        await connection.__aexit__(None, None, None)
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def _wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result()
