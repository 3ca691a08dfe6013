"""What a process logs as JSON: one object a line, whatever is in it."""

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import LogSettings
from stream.logs import JsonFormatter, held_until_configured, log_held, log_to_stderr

anything = st.text(st.characters(), max_size=30)  # also halves of surrogate pairs
KEYS = {"ts", "level", "logger", "message", "instance"}


@pytest.fixture
def as_before() -> Iterator[None]:
    """Logging as pytest had it, after the test."""
    root, hooks = logging.getLogger(), (sys.excepthook, sys.unraisablehook, warnings.showwarning)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    for name in ("anabranch", "faust", "mode", "aiokafka", "kafka"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def record(message: str, *parts: object, **more: object) -> logging.LogRecord:
    return logging.LogRecord(
        "anabranch.worker", logging.WARNING, __file__, 1, message, parts, **{"exc_info": None} | more
    )


@settings(deadline=None)
@given(anything, anything, st.sampled_from(["utf-8", "ascii", None]))
def test_a_record_is_one_object_on_one_line_whatever_is_in_it(text, instance, encoding):
    line = JsonFormatter(instance, encoding).format(record("no title of %s", text))
    assert len(line.splitlines()) == 1
    assert line.isprintable() or not text.isprintable() or not instance.isprintable()
    found = json.loads(line)
    assert found.keys() == KEYS
    assert found["message"] == f"no title of {text}".encode("utf-8", "backslashreplace").decode()
    assert (found["level"], found["logger"]) == ("WARNING", "anabranch.worker")


def test_the_time_is_utc_with_milliseconds():
    one = record("now")
    one.created = 1795814773.0425
    assert json.loads(JsonFormatter("worker/0", None).format(one))["ts"] == "2026-11-27T21:26:13.042Z"


def test_an_exception_is_one_field_with_its_traceback():
    try:
        raise ValueError("two\nlines\x1b[2J")
    except ValueError:
        line = JsonFormatter("worker/0", "utf-8").format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "\x1b" not in line
    found = json.loads(line)
    assert found.keys() == {*KEYS, "exception"}
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: two\nlines\x1b[2J")


def test_arguments_that_do_not_fit_their_message_lose_no_line():
    found = json.loads(JsonFormatter("worker/0", None).format(record("%d events", "many")))
    assert found["message"].startswith("'%d events' with ('many',)")


@pytest.mark.usefixtures("as_before")
def test_text_for_people_is_the_default(capsys):
    log_to_stderr(LogSettings(), "worker/0")
    logging.getLogger("anabranch.worker").info("ready\nto go")
    assert capsys.readouterr().err.endswith(" INFO ready\\nto go\n")


@pytest.mark.usefixtures("as_before")
def test_what_is_logged_before_the_settings_are_known_is_logged_as_they_say(capsys):
    with held_until_configured() as held:
        logging.getLogger("anabranch").warning("a file is open to others")
    assert capsys.readouterr().err == ""
    log_to_stderr(LogSettings(format="json"), "worker/0")
    log_held(held)
    assert json.loads(capsys.readouterr().err)["message"] == "a file is open to others"


ENDS = """
import logging, sys, threading, warnings
from stream.config import LogSettings
from stream.logs import log_to_stderr
log_to_stderr(LogSettings(format="json"), "trainer/0")
warnings.warn("soon gone", DeprecationWarning)
thread = threading.Thread(target=lambda: {}["of the thread"])
thread.start()
thread.join()
class Broken:
    def __del__(self):
        raise ValueError("of a finalizer")
Broken()
raise RuntimeError("of the process")
"""


def test_a_process_that_ends_by_an_error_logs_it_and_prints_no_text():
    command = [sys.executable, "-W", "always", "-c", ENDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "ERROR", "ERROR", "CRITICAL"]
    for line, part in zip(lines, ["soon gone", "of the thread", "of a finalizer", "of the process"], strict=True):
        assert part in line["message"]
    assert "RuntimeError: of the process" in lines[-1]["exception"]


def test_an_error_that_a_person_can_cause_is_an_object_too(tmp_path):
    command = [sys.executable, "-m", "stream.cli", "worker", "--broker", "127.0.0.1:1", "--data", "/proc/no-such"]
    env = {"ANABRANCH_LOG__FORMAT": "json", "ANABRANCH_CONFIG": "/dev/null"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert json.loads(line)["message"].startswith("the data directory /proc/no-such cannot be written")
    assert json.loads(line)["instance"] == "worker/0"
