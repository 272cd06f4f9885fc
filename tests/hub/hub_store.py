"""What the tests' Hub holds: repositories with commits, branches and files, and who may read and write them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

LARGE = (".safetensors", ".bin", ".png", ".pt")


class Refused(Exception):
    """An answer that is no success: status, the Hub's error code, and what it says."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


@dataclass(frozen=True)
class Blob:
    """A file's content; large ones go by their SHA-256, the others by git's SHA-1."""

    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(self.oid.encode()).hexdigest() if self.large else self.oid


@dataclass
class Repo:
    """A repository: `files` of each commit, and the commit of each branch."""

    name: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.record("main", {}, "initial commit")

    def record(self, branch: str, files: dict[str, Blob], message: str) -> str:
        """Adds a commit to a branch and gives its name."""
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        sha = hashlib.sha1(f"{self.name} {len(self.commits)} {message}\n{listing}".encode()).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str:
        """The commit of a branch, or the one of that name."""
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        """The files of `main`."""
        return {path: blob.content for path, blob in self.commits[self.branches["main"]].items()}


class Store:
    """Repositories, large files and users.

    Attributes:
        users: token → user; a user writes in a namespace of that name and in those of `members`.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.users = {"hf_jane": "jane", "hf_max": "max", "hf_reads": "reads"}
        self.members = {"org": {"jane"}}
        self.read_only = {"reads"}

    def user(self, authorization: str | None) -> str | None:
        """Whose token it is; None without one."""
        if not authorization:
            return None
        name = self.users.get(authorization.removeprefix("Bearer "))
        if name is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return name

    def may_write(self, user: str | None, namespace: str) -> bool:
        return (
            user is not None and user not in self.read_only and user in {namespace, *self.members.get(namespace, ())}
        )

    def create(self, user: str | None, name: str, organization: str | None, private: bool) -> str:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        namespace = organization or user
        full = f"{namespace}/{name}"
        if not self.may_write(user, namespace):
            raise Refused(403, f"You don't have the rights to create a model under the namespace {namespace!r}")
        if full in self.repos:
            raise Refused(409, "You already created this model repo", url=full)
        self.repos[full] = Repo(full, private=private)
        return full

    def readable(self, user: str | None, name: str) -> Repo:
        repo = self.repos.get(name)
        if repo is None or (repo.private and not self._sees(user, repo)):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def downloadable(self, user: str | None, name: str) -> Repo:
        repo = self.readable(user, name)
        if repo.gated and not self._sees(user, repo):
            raise Refused(403 if user else 401, f"Access to model {name} is restricted.", "GatedRepo")
        return repo

    def writable(self, user: str | None, name: str) -> Repo:
        repo = self.readable(user, name)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not self.may_write(user, name.split("/")[0]):
            raise Refused(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return repo

    def _sees(self, user: str | None, repo: Repo) -> bool:
        owner = repo.name.split("/")[0]
        return user is not None and user in {owner, *self.members.get(owner, ()), *repo.readers}


def is_large(path: str, size: int) -> bool:
    """What goes through the storage of large files."""
    return size > 0 and (PurePosixPath(path).suffix in LARGE or size > 1_000_000)
