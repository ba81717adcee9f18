import pytest

from blogtune.common.progress import BETWEEN_LINES, progress


def test_without_a_terminal_a_line_comes_every_half_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It came every ten seconds: tqdm's monitor looks after a bar that skips updates."""
    now = 0.0
    bar = progress(desc="train", unit="steps", total=1000)
    bar._time = lambda: now
    bar.start_t = bar.last_print_t = now
    for _ in range(100):
        now += 1.0
        bar.update()
        assert bar.miniters <= 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"train: {count} of 1000 steps" for count in (30, 60, 90)
    ]
    assert BETWEEN_LINES == 30.0
