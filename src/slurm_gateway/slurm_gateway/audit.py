"""The audit log: what was decided about whom, when and why, one JSON object a line."""

import json
import logging
import logging.handlers
import time


class AuditLog:
    """A file that only grows, until something else, such as logrotate, puts a new one in its place."""

    def __init__(self, path, log):
        self._log = log
        self._handler = None
        if path:
            self._handler = logging.handlers.WatchedFileHandler(
                path, encoding="utf8", errors="backslashreplace", delay=True
            )
            self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(self, *, user, decision, reason, source, **more):
        """Add an entry."""
        if self._handler is None:
            return
        now = time.time()
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z",
            "user": user,
            "decision": decision,
            "reason": reason,
            "source": source,
            **more,
        }
        # JSON escapes line breaks, so that no name can make a line of its own.
        text = json.dumps(entry, ensure_ascii=True)
        try:
            self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))
        except OSError as exc:
            self._log.error("The audit log can't be written: %s. %s", exc, text)

    def close(self):
        """Close the file."""
        if self._handler is not None:
            self._handler.close()
