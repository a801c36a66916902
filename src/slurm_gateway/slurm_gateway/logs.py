"""The gateway's log: one record a line, in logfmt, with the cluster, user and job that it is about.

    level=warning msg="Cluster 5d… of alice failed: …" cluster=5d… user=alice job=4711 reason=out_of_memory

Each line begins with its priority, as journald wants it. The server's own messages name a cluster or a worker; what
belongs to it is looked up. What this package logs may say more with `extra={"user": …, "job": …, "reason": …}`.
"""

import logging
import re

FIELDS = ("cluster", "user", "job", "worker", "reason", "by")
NAMES = re.compile(r"\b[0-9a-f]{32}\b")
# Should a token come into a message in spite of everything: what stands after such a word.
SECRETS = re.compile(
    r"(?i)\b(token|api_token|secret|password|authorization)"
    r"([\"']?\s*[=:]\s*[\"']?(?:token |bearer |basic )?)[^\s\"'&,;]+"
)
# What journald takes for the priority of a line, see sd-daemon(3)
PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class About(logging.Filter):
    """Adds to a record what it is about, from the clusters that the gateway knows."""

    def __init__(self, db):
        super().__init__()
        self._db = db

    def filter(self, record):
        try:
            self._add(record)
        except Exception as exc:  # a record without its fields is better than none
            record.reason = f"the fields of this record are not known: {exc!r}"
        return True

    def _add(self, record):
        cluster, worker = self._named(getattr(record, "cluster", None))
        if cluster is None:
            named = (self._named(name) for name in NAMES.findall(record.getMessage()))
            cluster, worker = next((found for found in named if found[0]), (None, None))
        if cluster is None:
            return
        about = {
            "cluster": cluster.name,
            "user": cluster.username,
            "worker": worker and worker.name,
            "job": (worker or cluster).state.get("job_id"),
        }
        for key, value in about.items():
            if value and not hasattr(record, key):
                setattr(record, key, value)

    def _named(self, name):
        cluster = self._db.get_cluster(name)
        if cluster is not None:
            return cluster, None
        for cluster in self._db.name_to_cluster.values():
            if name in cluster.workers:
                return cluster, cluster.workers[name]
        return None, None


class LogfmtFormatter(logging.Formatter):
    """One line of logfmt for each record; a traceback is a field of it."""

    def format(self, record):
        fields = {"level": record.levelname.lower(), "msg": record.getMessage()}
        if record.name != "DaskGateway":
            fields["logger"] = record.name
        fields.update((name, getattr(record, name)) for name in FIELDS if getattr(record, name, None))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line = " ".join(f"{name}={quoted(without_secrets(value))}" for name, value in fields.items())
        return f"<{PRIORITIES.get(record.levelname, 5)}>{line}"


def without_secrets(value):
    """A text in which a value that looks like a secret is struck out."""
    return SECRETS.sub(r"\1\2***", str(value))


def quoted(value):
    """A value of logfmt: in quotes where it must be, and never with a line break or another control character."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./:@+-]+", text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def write_logfmt(log):
    """Let this logger's handlers write logfmt, and the event loop's logger write with them.

    Upstream's own setting for this is no trait any more, since it assigns to Application.logging_config.
    """
    for handler in log.handlers:
        handler.setFormatter(LogfmtFormatter())
    loop = logging.getLogger("asyncio")
    loop.handlers, loop.propagate = list(log.handlers), False


def tell_about(log, db):
    """Let the records of this logger say what they are about; returns what ends that."""
    about = About(db)
    handlers = list(log.handlers)  # also loggers that pass on to it, such as aiohttp's, come by these
    for handler in handlers:
        handler.addFilter(about)

    def stop():
        for handler in handlers:
            handler.removeFilter(about)

    return stop
