"""Progress lines: what they say, in a log and on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ldsaug_ray.run import progress
from ldsaug_ray.run.progress import Bar, bar, make_console


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_says_share_counts_rate_and_time_left(clock: Clock) -> None:
    shown = Bar("encode", 20_000, "images", 0, log())
    clock.now += 10
    shown.advance(5_000)
    assert shown.line() == "encode     25%  5,000/20,000 images, 500/s, 30 s left"
    shown.advance(5_000, "loss 0.12")
    shown.advance(0)
    assert shown.line() == "encode     50%  10,000/20,000 images, 1,000/s, 10 s left  loss 0.12"
    shown.set(20_000)
    assert shown.line() == "encode    100%  20,000/20,000 images, 2,000/s  loss 0.12"


def test_what_an_earlier_attempt_did_does_not_count_for_the_rate(clock: Clock) -> None:
    shown = Bar("score", 1_000, "candidates", 900, log())
    assert shown.line() == "score      90%  900/1,000 candidates, 0/s"
    clock.now += 10
    shown.advance(50)
    assert shown.line() == "score      95%  950/1,000 candidates, 5/s, 10 s left"


def test_nothing_to_do(clock: Clock) -> None:
    shown = Bar("decode", 0, "images", 0, log())
    assert shown.line() == "decode    100%  0/0 images, 0/s"


def test_a_log_gets_a_line_now_and_then(clock: Clock) -> None:
    console = log()
    with bar(console, "encode", 100, "images", 40) as shown:
        for _ in range(6):
            clock.now += 6
            shown.advance(10)
    assert lines(console) == [
        "encode    starting: 100 images, 40 of them done",
        "encode     70%  70/100 images, 2/s, 18 s left",
        "encode    100%  100/100 images, 2/s",
    ]


def test_a_long_line_is_not_broken_and_markup_is_text(clock: Clock) -> None:
    console = log()
    with bar(console, "encode", 10, "images") as shown:
        clock.now += 100
        shown.set(10, f"note {'x' * 100}")
    assert len(lines(console)) == 2
    assert lines(console)[-1].endswith("x" * 100)


def test_a_failure_does_not_look_like_success(clock: Clock) -> None:
    console = log()
    with pytest.raises(RuntimeError), bar(console, "encode", 10, "images"):
        raise RuntimeError
    assert lines(console) == ["encode    starting: 10 images"]


def test_a_terminal_gets_a_live_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with bar(console, "encode", 100, "images", 50) as shown:
        shown.advance(50, "loss 0.1")
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "encode" in text
    assert "100/100" in text
    assert "loss 0.1" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (1e6, "277.8 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress._duration(seconds) == text


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("hello")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


def test_a_rate_counts_from_where_the_attempt_began():
    out = io.StringIO()
    shown = Bar("train", 1000, "images", 0, Console(file=out))
    shown.begin_at(900)
    assert shown.done == 900
    assert "90%" in shown.line()
    assert ", 0/s" in shown.line()
