"""A run's log file on a full disk."""

import logging

from engine.run_log import LogFile


def test_a_full_disk_costs_the_log_and_not_the_run(capsys):
    handler = LogFile("/dev/full")
    for _ in range(3):
        handler.handle(logging.LogRecord("mdarts", logging.INFO, "", 0, "a line", None, None))
    handler.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: cannot write /dev/full: ") and "No space left" in line


def test_any_text_can_be_logged(tmp_path):
    handler = LogFile(tmp_path / "log.txt")
    handler.handle(logging.LogRecord("mdarts", logging.INFO, "", 0, "Grüße \udcff", None, None))
    handler.close()
    assert (tmp_path / "log.txt").read_bytes() == "Grüße \\udcff\n".encode()
