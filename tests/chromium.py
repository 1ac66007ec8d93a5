"""Headless Chromium, driven by its DevTools protocol over a websocket; what it complains of is collected."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest


class Browser:
    """One page; `complaints`: errors and warnings of its console, uncaught exceptions, refused contents."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.complaints, self.number = socket, [], 0

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json(timeout=60)
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(message["params"])
            if message.get("id") == self.number:
                assert "error" not in message, message
                return dict(message["result"])

    async def js(self, expression: str) -> Any:
        """The value of an expression once two frames have been drawn."""
        drawn = "new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))"
        text = f"{drawn}.then(() => ({expression}))"
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}  # a page may play sounds only then
        found = await self.ask("Runtime.evaluate", expression=text, **how)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def key(self, key: str) -> None:
        """Press a key, such as ArrowRight."""
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, " ": 32}[key]
        for kind in ("rawKeyDown", "keyUp"):
            await self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


@asynccontextmanager
async def browser(page: Path, profile: Path, width: int = 1100) -> AsyncIterator[Browser]:
    """A browser that shows a file; the test is skipped where there is no Chromium."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on PATH")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with subprocess.Popen([program, *options, "about:blank"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            port = next(m[1] for line in process.stderr if (m := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
            async with aiohttp.ClientSession() as session:
                tabs = await (await session.get(f"http://127.0.0.1:{port}/json/list")).json()
                address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    found = Browser(socket)
                    for domain in ("Runtime", "Log", "Page"):
                        await found.ask(f"{domain}.enable")
                    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                    await found.ask("Emulation.setDeviceMetricsOverride", **size)
                    await found.ask("Page.navigate", url=page.as_uri())
                    await found.js(
                        "new Promise((r) => { if (document.readyState === 'complete') r(); else onload = r; })"
                    )
                    yield found
        finally:
            process.terminate()
