"""Whether this Python, on this machine, can install what the lock files name.

`make setup` runs this file before there is an environment, with whatever Python it finds: nothing
but the standard library, and no syntax newer than Python 3.6.
"""

import importlib
import os
import platform
import subprocess
import sys
import sysconfig

# What the lock files were checked to have wheels for; of the systems, MLX's wheels ask for most.
PYTHONS = ((3, 11), (3, 14))
OLDEST_GLIBC = (2, 35)
OLDEST_MACOS = (14, 0)
MACHINES = {"linux": ("x86_64", "aarch64"), "darwin": ("arm64",)}


def obstacle() -> str:
    """Why the packages cannot be installed here, with the remedy, in one line; "" if they can."""
    return _python() or _machine() or _macos() or _glibc() or _venv()


def _python() -> str:
    found = f"{sys.executable} (Python {platform.python_version()})"
    remedy = "install Python 3.12, or name one: make setup PYTHON=python3.12"
    if sys.version_info[:2] < PYTHONS[0]:
        return f"{found}: too old, 3.11 to 3.14 are needed; {remedy}"
    if sys.version_info[:2] > PYTHONS[1]:
        return f"{found}: too new, packages have no wheels for it yet; {remedy}"
    usual = platform.python_implementation() == "CPython"
    if not usual or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return f"{found}: packages have wheels for standard CPython only; {remedy}"
    return ""


def _machine() -> str:
    if platform.machine() in MACHINES.get(sys.platform, ()) and sys.maxsize > 2**32:
        return ""
    if sys.platform == "darwin" and _sysctl("hw.optional.arm64") == "1":
        return (
            f"{sys.executable}: an x86-64 Python on an Apple Silicon Mac, where MLX needs an arm64 "
            "one; install that (brew in /opt/homebrew, or python.org), in a Terminal without "
            "Rosetta"
        )
    if sys.platform == "darwin":
        return "a Mac with an Intel processor: MLX needs Apple Silicon; use Linux on this machine"
    return (
        f"{platform.system()} on {platform.machine()}: packages have wheels for Linux on x86-64 "
        "and arm64 and for macOS on Apple Silicon; use one of these"
    )


def _sysctl(name: str) -> str:
    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _macos() -> str:
    found = platform.mac_ver()[0]
    if not found or _version(found) >= OLDEST_MACOS:
        return ""
    return f"macOS {found}: MLX needs 14 or newer; update macOS"


def _glibc() -> str:
    if sys.platform != "linux":
        return ""
    try:
        found = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1]
    except (ValueError, OSError, IndexError):
        return "Linux without glibc: MLX has no wheels for it; use Debian 12 or Ubuntu 22.04"
    if _version(found) < OLDEST_GLIBC:
        return f"glibc {found}: MLX needs 2.35; use Debian 12, Ubuntu 22.04, Fedora 36 or newer"
    return ""


def _venv() -> str:
    try:
        for module in ("ensurepip", "venv"):
            importlib.import_module(module)
    except ImportError as error:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        return f"{sys.executable}: {error}; on Debian and Ubuntu: apt install {package}"
    return ""


def _version(text: str) -> "tuple[int, ...]":
    return tuple(int(part) for part in text.split(".")[:2])


if __name__ == "__main__":
    sys.exit(obstacle() or 0)
