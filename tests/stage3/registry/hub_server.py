"""A Hugging Face Hub on this machine: the HTTP calls that `huggingface_hub` makes to push and to pull a repository.

Written after the client's code (huggingface_hub 2.4: hf_api, _commit_api, lfs, file_download) and the git-lfs batch
API. It keeps commits as whole trees in memory, demands a token for writing, takes large files by LFS (in parts above
`part_bytes`), and redirects their download to another path, as the hub does to its CDN.
"""

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

TOKEN = "hf_of_the_tests"


@dataclass
class Entry:
    """A file of a commit: its bytes, or the SHA-256 of an LFS object."""

    content: bytes | None
    lfs: str | None = None
    size: int = 0

    @property
    def oid(self) -> str:
        """The git blob's SHA-1 (of the pointer, for an LFS file)."""
        body = self.content if self.lfs is None else f"oid sha256:{self.lfs}\nsize {self.size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@dataclass
class Repo:
    """Commits by their id, and what the names point at."""

    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: dict[str, Entry]) -> str:
        """Make a commit of the tree on main."""
        told = json.dumps([[path, entry.oid] for path, entry in sorted(tree.items())]) + self.refs.get("main", "")
        oid = hashlib.sha1(told.encode()).hexdigest()
        self.commits[oid] = tree
        self.refs["main"] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """The commit that a branch, a tag or an id names."""
        oid = self.refs.get(revision, revision)
        return oid if oid in self.commits else None


class HubServer:
    """`with HubServer() as hub:` then `hub.url`; `hub.calls` lists what was asked."""

    def __init__(self, part_bytes: int = 50_000) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.calls: list[str] = []
        self.before_commit = lambda repo: None
        self.part_bytes = part_bytes
        config = uvicorn.Config(self._app(), host="127.0.0.1", port=0, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < deadline, "the hub did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.cdn = f"http://localhost:{port}"  # another host: the client follows redirects within one by itself
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def tree(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds."""
        found = self.repos[repo]
        entries = found.commits[found.find(revision)]
        return {path: self.objects[entry.lfs] if entry.lfs else entry.content for path, entry in entries.items()}

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def gate(request: Request, call_next):
            self.calls.append(f"{request.method} {request.url.path}")
            writes = request.method in ("POST", "PUT") and not request.url.path.startswith("/lfs/")
            if writes and request.headers.get("authorization") != f"Bearer {TOKEN}":
                return JSONResponse({"error": "Invalid credentials in Authorization header"}, 401)
            return await call_next(request)

        self._add_repo_calls(app)
        self._add_lfs_calls(app)
        self._add_read_calls(app)
        return app

    def _add_repo_calls(self, app: FastAPI) -> None:
        @app.post("/api/repos/create")
        async def create(request: Request):
            body = await request.json()
            name = f"{body['organization']}/{body['name']}"
            if name in self.repos:
                return JSONResponse({"error": "You already created this model repo", "url": f"{self.url}/{name}"}, 409)
            self.repos[name] = Repo()
            self.repos[name].commit({".gitattributes": Entry(b"*.safetensors filter=lfs\n")})
            return {"url": f"{self.url}/{name}"}

        @app.post("/api/validate-yaml")
        async def validate(request: Request):
            text = (await request.json())["content"]
            try:
                data = yaml.safe_load(text.split("---\n")[1])
                assert isinstance(data["license"], str) and isinstance(data["tags"], list)
            except Exception as error:
                return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return {"errors": [], "warnings": []}

        @app.post("/api/models/{owner}/{name}/preupload/{revision}")
        async def preupload(owner: str, name: str, revision: str, request: Request):
            repo = self.repos[f"{owner}/{name}"]
            tree = repo.commits[repo.find(revision)]
            files = (await request.json())["files"]
            assert all(len(base64.b64decode(file["sample"])) == min(512, file["size"]) for file in files)
            return {"files": [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": tree[file["path"]].oid if file["path"] in tree else None}
                for file in files
            ]}  # fmt: skip

        @app.post("/api/models/{owner}/{name}/commit/{revision}")
        async def commit(owner: str, name: str, revision: str, request: Request):
            repo = self.repos[f"{owner}/{name}"]
            self.before_commit(repo)
            lines = [json.loads(line) for line in (await request.body()).splitlines()]
            header = next(line["value"] for line in lines if line["key"] == "header")
            if header.get("parentCommit") not in (None, repo.refs["main"]):
                return JSONResponse({"error": "A commit has happened since. Please refresh and try again."}, 412)
            tree = dict(repo.commits[repo.refs["main"]])
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    tree[value["path"]] = Entry(base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    if value["oid"] not in self.objects:
                        return JSONResponse({"error": f"LFS pointer to a file that is not there: {value['path']}"}, 400)
                    tree[value["path"]] = Entry(None, value["oid"], len(self.objects[value["oid"]]))
                elif line["key"] == "deletedFile":
                    del tree[value["path"]]
            oid = repo.commit(tree)
            return {"commitUrl": f"{self.url}/{owner}/{name}/commit/{oid}", "commitOid": oid, "success": True}

        @app.post("/api/models/{owner}/{name}/tag/{revision}")
        async def tag(owner: str, name: str, revision: str, request: Request):
            repo, label = self.repos[f"{owner}/{name}"], (await request.json())["tag"]
            if label in repo.refs:
                return JSONResponse({"error": "Tag already exists"}, 409)
            repo.refs[label] = repo.find(revision)
            return {}

    def _add_lfs_calls(self, app: FastAPI) -> None:
        @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
        async def batch(owner: str, name: str, request: Request):
            body = await request.json()
            assert body["operation"] == "upload" and "basic" in body["transfers"]
            return {"transfer": "multipart", "objects": [self._lfs_actions(**each) for each in body["objects"]]}

        @app.put("/lfs/one/{oid}")
        async def upload(oid: str, request: Request):
            body = await request.body()
            if hashlib.sha256(body).hexdigest() != oid:
                return Response(status_code=400)
            self.objects[oid] = body
            return Response()

        @app.put("/lfs/part/{oid}/{number}")
        async def part(oid: str, number: int, request: Request):
            self.parts.setdefault(oid, {})[number] = await request.body()
            return Response(headers={"etag": f'"{oid[:8]}-{number}"'})

        @app.post("/lfs/complete/{oid}")
        async def complete(oid: str, request: Request):
            told = [part["partNumber"] for part in (await request.json())["parts"]]
            body = b"".join(self.parts[oid][number] for number in told)
            if hashlib.sha256(body).hexdigest() != oid:
                return Response(status_code=400)
            self.objects[oid] = body
            return {}

        @app.post("/lfs/verify")
        async def verify(request: Request):
            body = await request.json()
            return Response(status_code=200 if len(self.objects.get(body["oid"], b"")) == body["size"] else 400)

        @app.api_route("/lfs/download/{oid}", methods=["GET", "HEAD"])
        async def download(oid: str):
            return Response(self.objects[oid], media_type="application/octet-stream")

    def _lfs_actions(self, oid: str, size: int) -> dict:
        """Nothing to do for what is there; one PUT for a small file, parts for a large one."""
        if oid in self.objects:
            return {"oid": oid, "size": size}
        verify = {"href": f"{self.url}/lfs/verify"}
        if size <= self.part_bytes:
            upload = {"href": f"{self.url}/lfs/one/{oid}"}
        else:
            parts = -(-size // self.part_bytes)
            urls = {str(number): f"{self.url}/lfs/part/{oid}/{number}" for number in range(1, parts + 1)}
            upload = {"href": f"{self.url}/lfs/complete/{oid}", "header": {"chunk_size": str(self.part_bytes), **urls}}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _add_read_calls(self, app: FastAPI) -> None:
        @app.get("/api/models/{owner}/{name}")
        @app.get("/api/models/{owner}/{name}/revision/{revision:path}")
        async def info(owner: str, name: str, revision: str = "main"):
            repo, oid, problem = self._find(owner, name, revision)
            if problem:
                return problem
            siblings = [{"rfilename": path} for path in repo.commits[oid]]
            return {"id": f"{owner}/{name}", "sha": oid, "siblings": siblings, "private": True, "tags": []}

        @app.get("/api/models/{owner}/{name}/tree/{revision:path}")
        async def tree(owner: str, name: str, revision: str):
            repo, oid, problem = self._find(owner, name, revision)
            if problem:
                return problem
            rows = []
            for path, entry in repo.commits[oid].items():
                size = entry.size if entry.lfs else len(entry.content)
                row = {"type": "file", "path": path, "size": size, "oid": entry.oid}
                lfs = {"lfs": {"oid": entry.lfs, "size": size, "pointerSize": 130}} if entry.lfs else {}
                rows.append(row | lfs)
            return rows

        @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
        async def resolve(owner: str, name: str, revision: str, path: str):
            repo, oid, problem = self._find(owner, name, revision)
            if problem or path not in repo.commits[oid]:
                return problem or JSONResponse({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            entry, headers = repo.commits[oid][path], {"X-Repo-Commit": oid}
            if entry.lfs is None:
                return Response(entry.content, headers=headers | {"ETag": f'"{entry.oid}"'})
            told = {"X-Linked-Etag": f'"{entry.lfs}"', "X-Linked-Size": str(entry.size), "ETag": f'"{entry.oid}"'}
            location = {"Location": f"{self.cdn}/lfs/download/{entry.lfs}"}
            return Response(status_code=302, headers=headers | told | location)

    def _find(self, owner: str, name: str, revision: str) -> tuple[Repo | None, str | None, Response | None]:
        repo = self.repos.get(f"{owner}/{name}")
        oid = repo.find(revision) if repo else None
        code = "RepoNotFound" if repo is None else "RevisionNotFound" if oid is None else None
        return repo, oid, JSONResponse({"error": code}, 404, {"X-Error-Code": code}) if code else None
