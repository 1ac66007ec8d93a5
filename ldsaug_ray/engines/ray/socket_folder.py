"""Where a local Ray keeps its sockets, whose names must be short, and in words why one does not start."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ldsaug_ray.common.secrets import first_line
from ldsaug_ray.config import Ray
from ldsaug_ray.errors import LdsaugError, ResourceError

_LONGEST = 107 if sys.platform.startswith("linux") else 103  # bytes in the name of a Unix socket
_BELOW = "/session_2026-11-28_10-10-44_396230_4194304/sockets/plasma_store.9"  # the longest that Ray adds
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def short_temp_dir() -> str | None:
    """What to give Ray as its folder for temporary files; none where its own has a name that is short enough.

    A batch scheduler's TMPDIR often has not. Ray then gets a link to it with a short name, so that what Ray spills
    still goes where the scheduler wants it. The link is removed when this process ends.

    Raises:
        ResourceError: nowhere can the link be made.
    """
    own = os.environ.get("RAY_TMPDIR") or (sys.platform.startswith("linux") and os.environ.get("TMPDIR")) or "/tmp"
    if len(os.fsencode(f"{own}/ray{_BELOW}")) <= _LONGEST:
        return None
    for folder in _SHORT:
        try:
            Path(own, "ray").mkdir(parents=True, exist_ok=True)
            place = tempfile.mkdtemp(prefix="ldsaug-", dir=folder)
            os.symlink(Path(own, "ray").absolute(), f"{place}/ray")
        except OSError:
            continue
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        return f"{place}/ray"
    raise ResourceError(
        f"Ray cannot keep its sockets in {own}, whose name is too long for them, and nothing can be written to "
        f"{', '.join(_SHORT)}; set RAY_TMPDIR to a folder with a short name"
    )


def not_started(error: Exception, limits: Ray) -> LdsaugError:
    """What keeps a local Ray from starting, and what to do; `limits`: what was asked of it."""
    text, reason = str(error), first_line(error)
    what = "another folder for it is set by RAY_TMPDIR"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        what = "too many files are open: raise the limit by ulimit -n"
    elif isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM):
        what = "this machine gives no more processes or memory: end some, raise ulimit -u, or lower ray.num_cpus"
    elif isinstance(error, OSError) and error.filename is not None:
        reason = f"{os.fsdecode(error.filename)}: {error.strerror}"
        what = "TMPDIR, or RAY_TMPDIR, names the folder that Ray writes to"
    elif "CUDA_VISIBLE_DEVICES" in text:
        what = f"ray.num_gpus={limits.num_gpus} is more than this process may see: lower it"
    elif "object store" in text or "object_store_memory" in text:
        given = limits.object_store_gb
        what = f"lower ray.object_store_gb={given:g}" if given else "give ray.object_store_gb, or free some memory"
    elif "in use" in text or "bind" in text:
        what = "another program, or another Ray, has the port: end it, or try again"
    else:
        what = "a machine that is very busy or short of memory or disk does that; --verbose shows all that Ray says"
    return ResourceError(f"a local Ray does not start ({reason}); {what}. engine=inline works without Ray")
