"""The options of a cluster that a user sees, the limits on them, and the checks of what was sent.

A client checks some of this too; here nothing is taken for granted, because a request can be written by hand.
"""

import grp
import math
import os
import pwd
import re
import time

from dask_gateway_server import options as upstream
from traitlets import Bool, Dict, Float, List, Unicode
from traitlets.config import LoggingConfigurable

GIB = 2**30

# Names that would act on sbatch, on bash or on the gateway's own settings instead of on the user's program.
REFUSED_NAMES = frozenset(
    {
        "BASHOPTS", "BASH_ENV", "CDPATH", "ENV", "GCONV_PATH", "GLOBIGNORE", "HOME", "IFS", "LOCPATH", "LOGNAME",
        "NLSPATH", "PATH", "PS4", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONSTARTUP", "SHELL", "SHELLOPTS", "USER",
    }
)  # fmt: skip
REFUSED_PREFIXES = (
    "BASH_FUNC_", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "DASK_DISTRIBUTED__COMM__TLS",
    "DASK_DISTRIBUTED__SCHEDULER__HTTP", "DASK_DISTRIBUTED__SCHEDULER__IDLE", "DASK_DISTRIBUTED__WORKER__HTTP",
    "DASK_GATEWAY_", "LD_", "MUNGE_", "SACCT_", "SALLOC_", "SBATCH_", "SCANCEL_", "SLURM_", "SQUEUE_", "SUDO_",
)  # fmt: skip


def shown(value):
    """A value as it may stand in a sentence: short, whatever was sent."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Number(upstream.Float):
    """A number with limits; `unit` stands in the sentences."""

    def __init__(self, field, *, unit="", whole=True, **kwargs):
        self.unit = f" {unit}" if unit else ""
        self.whole = whole
        super().__init__(field, **kwargs)

    def validate(self, x):
        numeric = isinstance(x, int) or (isinstance(x, float) and not self.whole)
        if isinstance(x, bool) or not numeric:
            raise TypeError(f"{self.field} must be a {'whole ' if self.whole else ''}number, got {shown(x)}")
        if not math.isfinite(x):
            raise ValueError(f"{self.field} must be a finite number, got {shown(x)}")
        if self.max is not None and x > self.max:
            raise ValueError(f"{self.field} is limited to {self.max:g}{self.unit} here; {shown(x)} was asked for")
        if self.min is not None and x < self.min:
            raise ValueError(f"{self.field} must be at least {self.min:g}{self.unit}; {shown(x)} was asked for")
        return x

    def json_type_spec(self):
        return {"type": "int" if self.whole else "float", "min": self.min, "max": self.max}


class Word(upstream.String):
    """A name that SLURM knows: of an account, a partition, a QoS. Empty for the default."""

    def validate(self, x):
        x = text_of(self, x)
        if not re.fullmatch(r"|[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}", x):
            raise ValueError(f"{self.field} must be one name that SLURM knows, got {shown(x)}")
        return x


class Choice(upstream.Select):
    """One of the names that SLURM allows this user."""

    def validate(self, x):
        x = text_of(self, x)
        if x not in self.options:
            raise ValueError(
                f"{self.field} must be one of those that you may use ({', '.join(self.options)}), got {shown(x)}"
            )
        return x


class Release(Choice):
    """The name of a software environment that the site offers."""

    def __init__(self, field, options, *, retired, **kwargs):
        self.retired = retired
        super().__init__(field, options, **kwargs)

    def validate(self, x):
        x = text_of(self, x)
        offered = ", ".join(self.options)
        if x in self.retired:
            raise ValueError(f"{self.retired[x]}. {self.field} must be one of those that are offered ({offered})")
        if x not in self.options:
            raise ValueError(f"{self.field} must be one of those that are offered ({offered}), got {shown(x)}")
        return x


class Script(upstream.String):
    """Lines of shell."""

    def __init__(self, field, *, limit, **kwargs):
        self.limit = limit
        super().__init__(field, **kwargs)

    def validate(self, x):
        x = text_of(self, x).replace("\r\n", "\n")
        if len(x.encode("utf-8")) > self.limit:
            raise ValueError(f"{self.field} is limited to {self.limit} bytes here; put more into a file and source it")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", x):
            raise ValueError(f"{self.field} must hold no control characters")
        return x


class Duration(upstream.String):
    """A time as SLURM writes it, or in words; empty for the default."""

    def __init__(self, field, *, maximum, **kwargs):
        self.maximum = maximum
        super().__init__(field, **kwargs)

    def validate(self, x):
        x = text_of(self, x).strip()
        minutes = self.minutes(x)
        if self.maximum and minutes > self.maximum:
            raise ValueError(
                f"{self.field} is limited to {in_hours(self.maximum)} here; {in_hours(minutes)} was asked for"
            )
        return x

    def transform(self, x):
        return self.minutes(x)

    def minutes(self, x):
        """Whole minutes, rounded up; 0 for the default."""
        if x == "":
            return 0
        match = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,5}):([0-9]{2})(?::([0-9]{2}))?", x)
        if match and match[1]:
            days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        elif match and match[4]:
            days, hours, minutes, seconds = 0, int(match[2]), int(match[3]), int(match[4])
        elif match:
            days, hours, minutes, seconds = 0, int(match[2]), int(match[3]), 0
        else:
            match = re.fullmatch(r"([0-9]{1,6}) ?(m|min|minutes?|h|hours?|d|days?)", x)
            if not match:
                raise ValueError(
                    f"{self.field} must look like '12:00:00' (hours, minutes, seconds), '1-00:00:00' (days first) or "
                    f"'90 minutes', got {shown(x)}"
                )
            unit = {"m": 1, "h": 60, "d": 1440}[match[2][0]]
            days, hours, minutes, seconds = 0, 0, int(match[1]) * unit, 0
        total = (days * 24 + hours) * 60 + minutes + math.ceil(seconds / 60)
        if total < 1:
            raise ValueError(f"{self.field} must be at least a minute, got {shown(x)}")
        return total


class Variables(upstream.Mapping):
    """Environment variables for the user's jobs."""

    def __init__(self, field, *, count=64, limit=8192, **kwargs):
        self.count = count
        self.limit = limit
        super().__init__(field, **kwargs)

    def validate(self, x):
        if not isinstance(x, dict):
            raise TypeError(f"{self.field} must be a mapping of names to strings, got {shown(x)}")
        if len(x) > self.count:
            raise ValueError(f"{self.field} is limited to {self.count} variables here; there are {len(x)}")
        for name, value in x.items():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
                raise ValueError(f"{self.field}: {shown(name)} is not a name of a variable")
            if name.upper() in REFUSED_NAMES or name.upper().startswith(REFUSED_PREFIXES):
                raise ValueError(f"{self.field}: {name} can't be set here; set what your program needs in worker_setup")
            if not isinstance(value, str):
                raise TypeError(f"{self.field}: the value of {name} must be a string, got {shown(value)}")
            if not encodable(value) or re.search(r"[\x00-\x1f\x7f]", value):
                raise ValueError(f"{self.field}: the value of {name} must be one line without control characters")
            if len(value.encode("utf-8")) > self.limit:
                raise ValueError(f"{self.field}: the value of {name} is limited to {self.limit} bytes here")
        return x


def text_of(field, x):
    """The value, if it is text that can be written into a file."""
    if not isinstance(x, str):
        raise TypeError(f"{field.field} must be a string, got {shown(x)}")
    if not encodable(x):
        raise ValueError(f"{field.field} is not valid text")
    return x


def encodable(x):
    """Whether a string is free of the halves of characters that JSON lets through."""
    try:
        x.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def in_hours(minutes):
    """Minutes, as a user writes a time limit."""
    return f"{minutes // 60}:{minutes % 60:02d}:00"


class SiteOptions(upstream.Options):
    """Upstream's options, with sentences of bounded length for unknown names."""

    def parse_options(self, request):
        if not isinstance(request, dict):
            raise TypeError(f"the options must be a mapping, got {shown(request)}")
        unknown = sorted(set(request) - {field.field for field in self.fields})
        if unknown:
            known = ", ".join(field.field for field in self.fields)
            raise ValueError(f"there is no option {shown(unknown[0])}; the options are {known}")
        return super().parse_options(request)


DEFAULTS = {
    "worker_cores": 1,
    "worker_threads": 0,
    "worker_memory": 2.0,
    "scheduler_cores": 1,
    "scheduler_memory": 2.0,
    "worker_setup": "",
    "account": "",
    "partition": "",
    "qos": "",
    "time_limit": "12:00:00",
    "scheduler_time_limit": "",
    "environment_variables": {},
    "workers": 0,
}


class OptionsFor(LoggingConfigurable):
    """Makes the options of one user: the fields, their defaults, and the limits that hold for this user."""

    defaults = Dict(help="What an option is if the user doesn't set it; see DEFAULTS for the rest.", config=True)

    limits = Dict(
        {
            "worker_cores": 16,
            "worker_threads": 64,
            "worker_memory": 64,
            "scheduler_cores": 4,
            "scheduler_memory": 32,
            "time_limit": "24:00:00",
            "workers": 64,
            "clusters": 4,
        },
        help="The site's limits: on the options by their names, on the workers of a cluster, on a user's clusters.",
        config=True,
    )

    group_limits = Dict(
        help="Other limits for the members of groups of the directory; of several groups the largest holds.",
        config=True,
    )

    user_limits = Dict(help="Other limits for single users.", config=True)

    setup_limit = Float(16384, help="The longest `worker_setup`, in bytes.", config=True)

    environment = Dict(help="Environment variables that every job gets; a user's own are added.", config=True)

    accounts_from_slurm = Bool(
        True, help="Offer only the accounts that SLURM's associations give the user, with their default.", config=True
    )

    accounts_max_age = Float(60, help="Seconds for which a user's accounts are remembered.", config=True)

    releases = Dict(
        help="The software environments that are offered: {name: lines of bash that activate it}, the default first.",
        config=True,
    )

    retired_releases = Dict(
        help="What is said of names that were offered once: {name: a sentence without its full stop}.", config=True
    )

    partitions = List(Unicode(), help="The partitions that are offered; empty for any that SLURM has.", config=True)

    def __init__(self, slurm=None, **kwargs):
        super().__init__(**kwargs)
        self.slurm = slurm
        self._accounts = {}

    def limits_of(self, username):
        """The limits that hold for this user, times in minutes."""
        result = dict.fromkeys(DEFAULTS) | _in_minutes(self.limits)
        mine = [_in_minutes(self.group_limits[group]) for group in self._groups(username) if group in self.group_limits]
        for name in {name for limits in mine for name in limits}:
            values = [limits[name] for limits in mine if name in limits]
            result[name] = None if None in values else max(values)  # None is no limit
        result.update(_in_minutes(self.user_limits.get(username, {})))
        return result

    def _groups(self, username):
        if not self.group_limits:
            return []
        try:
            entry = pwd.getpwnam(username)
            return [_group_name(gid) for gid in os.getgrouplist(username, entry.pw_gid)]
        except KeyError:
            return []

    async def accounts_of(self, username):
        """(accounts, default) that SLURM gives this user; nothing where SLURM gives no answer."""
        if not self.accounts_from_slurm or self.slurm is None:
            return [], ""
        known, until = self._accounts.get(username, (None, 0))
        if known is not None and time.monotonic() < until:
            return known
        try:
            associations = await self.slurm.associations(username)
        except Exception as exc:
            self.log.warning("The accounts of %s can't be found out: %s", username, exc)
            return known or ([], "")
        accounts = list(dict.fromkeys(account for account, *_ in associations))
        chosen = next((default for *_, default in associations if default in accounts), "")
        result = (accounts, chosen or (accounts[0] if accounts else ""))
        self._accounts[username] = (result, time.monotonic() + self.accounts_max_age)
        return result

    async def __call__(self, user):
        """The options of a user: what upstream calls for each request."""
        limits = self.limits_of(user.name)
        accounts, account = await self.accounts_of(user.name)
        d = {**DEFAULTS, **self.defaults}

        def number(field, unit="", whole=True, low=1):
            top = limits[field]
            value = d[field] if top is None else min(d[field], top)
            return Number(field, default=value, min=low, max=top, unit=unit, whole=whole)

        duration = Duration("time_limit", maximum=limits["time_limit"])
        if limits["time_limit"] and duration.minutes(d["time_limit"]) > limits["time_limit"]:
            duration.default = in_hours(limits["time_limit"])
        else:
            duration.default = d["time_limit"]
        if accounts:
            preferred = d["account"] if d["account"] in accounts else account
            account_field = Choice("account", accounts, default=preferred)
        else:
            account_field = Word("account", default=d["account"])
        if self.partitions:
            partition_field = Choice("partition", self.partitions, default=d["partition"] or self.partitions[0])
        else:
            partition_field = Word("partition", default=d["partition"])
        release_fields = []
        if self.releases:
            default = d.get("jaspy") or next(iter(self.releases))
            release_fields = [Release("jaspy", list(self.releases), default=default, retired=self.retired_releases)]
        return SiteOptions(
            number("worker_cores", "cores"),
            number("worker_threads", "threads", low=0),
            number("worker_memory", "GiB", whole=False, low=0.25),
            number("scheduler_cores", "cores"),
            number("scheduler_memory", "GiB", whole=False, low=0.25),
            *release_fields,
            Script("worker_setup", default=d["worker_setup"], limit=int(self.setup_limit)),
            account_field,
            partition_field,
            Word("qos", default=d["qos"]),
            duration,
            Duration("scheduler_time_limit", maximum=limits["time_limit"], default=d["scheduler_time_limit"]),
            Variables("environment_variables", default=d["environment_variables"]),
            number("workers", "workers", low=0),
            handler=lambda options: self.configuration(options, limits),
        )

    def configuration(self, options, limits):
        """The options as the traits of SiteClusterConfig. A name that it lacks would be ignored with a warning."""
        return {
            "worker_cores": options.worker_cores,
            "worker_threads": options.worker_threads or options.worker_cores,
            "worker_memory": int(options.worker_memory * GIB),
            "scheduler_cores": options.scheduler_cores,
            "scheduler_memory": int(options.scheduler_memory * GIB),
            "worker_setup": self.setup(options),
            "account": options.account,
            "partition": options.partition,
            "qos": options.qos,
            "time_limit": options.time_limit,
            "scheduler_time_limit": max(options.scheduler_time_limit, options.time_limit),
            "environment": {**self.environment, **options.environment_variables},
            "cluster_max_workers": limits.get("workers"),
            "workers": options.workers,
        }

    def setup(self, options):
        """The lines that activate what jobs run in: the user's own, or those of the release as it is called now.

        They are kept with the cluster, so that its later workers run in the same release when another has become the
        default. Empty for the backend's own default.
        """
        if options.worker_setup.strip() or not self.releases:
            return options.worker_setup
        return self.releases[options.jaspy]


def _in_minutes(limits):
    duration = Duration("time_limit", maximum=None)
    return {
        name: duration.minutes(value) if name == "time_limit" and isinstance(value, str) else value
        for name, value in limits.items()
    }


def _group_name(gid):
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
