"""A server on this machine that speaks the protocol of the Hugging Face Hub, as far as we use it.

Files with an ETag, in ranges, large ones behind a redirect (LFS); lists of files; commits of small
files in the request and of large ones by LFS; a login. Nothing of the real Hub was reached.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


class HubServer:
    """Repositories in memory.

    Attributes:
        repos: content of the files of each repository, by name and path.
        private: repositories that need the login.
        branches: names of branches by repository; they share its files.
        requests: (method, path, the header Range) of all requests.
        stop_after: bytes after which a download breaks off; None for never.
        tag: what plain files of another site have for an ETag, of their hash; None for no ETag.
        if_range: whether that site gives the whole file if it is another version than If-Range.
        shifted: bytes by which parts of files start too early.
    """

    def __init__(self, port=0):
        self.repos, self.private, self.requests, self.objects = {}, set(), [], {}
        self.branches = {}
        self.stop_after, self.tag, self.if_range, self.shifted = None, '"{}"', True, 0
        outer = self

        class Handler(_Handler):
            hub = outer

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.cdn = f"{self.url}/cdn".replace("127.0.0.1", "localhost")  # another host, as there
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self):
        self.repos.clear(), self.private.clear(), self.requests.clear(), self.branches.clear()
        self.stop_after, self.tag, self.if_range, self.shifted = None, '"{}"', True, 0

    def ranges(self):
        return [asked for method, _, asked in self.requests if method == "GET" and asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_):
        pass

    def answer(self, code=200, body=b"", head=False, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        length = headers.pop("Content_Length", len(body))
        for name, value in {"Content-Length": length, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def refused(self, repo):
        """Whether a repository is missing or private, which are told apart by nobody."""
        allowed = repo not in self.hub.private or self.login()
        if repo in self.hub.repos and allowed:
            return False
        said = {"X_Error_Code": "RepoNotFound", "X_Error_Message": "Repository not found"}
        self.answer(401, {"error": "Repository not found"}, self.command == "HEAD", **said)
        return True

    def login(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        head = self.command == "HEAD"
        parts = path.strip("/").split("/")
        if parts[0] == "release":  # of another site, with plain files
            data = self.hub.repos.get("release", {}).get(parts[1])
            if data is None:
                return self.answer(404)
            tag = {"ETag": self.hub.tag.format(sha1(data))} if self.hub.tag else {}
            asked = self.headers.get("If-Range")
            whole = self.hub.if_range and asked is not None and asked != tag.get("ETag")
            return self.send_content(data, head, whole=whole, **tag)
        if parts[0] == "cdn":
            return self.send_content(self.hub.objects[parts[1]], head)
        if parts[:2] == ["api", "models"]:
            repo = "/".join(parts[2:4])
            if self.refused(repo):
                return None
            files = self.hub.repos[repo]
            if parts[4:5] == ["tree"]:
                listed = [{"type": "file", "path": name, "size": len(data), "oid": sha1(data)}
                          for name, data in files.items()]  # fmt: skip
                return self.answer(200, listed)
            return self.answer(200, {"id": repo, "modelId": repo, "sha": commit(files),
                                     "private": False, "tags": [], "downloads": 0, "likes": 0,
                                     "siblings": [{"rfilename": n} for n in files]})  # fmt: skip
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        if self.refused(repo):
            return None
        data = self.hub.repos[repo].get(name)
        if data is None:
            return self.answer(404, b"", head, X_Error_Code="EntryNotFound",
                               X_Repo_Commit=commit(self.hub.repos[repo]))  # fmt: skip
        known = {"X_Repo_Commit": commit(self.hub.repos[repo]), "Accept_Ranges": "bytes"}
        if len(data) < 5000:
            return self.send_content(data, head, ETag=f'"{sha1(data)}"', **known)
        digest = hashlib.sha256(data).hexdigest()
        self.hub.objects[digest] = data
        known |= {"X_Linked_Etag": f'"{digest}"', "X_Linked_Size": len(data)}
        return self.answer(302, b"", head, Location=f"{self.hub.cdn}/{digest}", **known)

    def send_content(self, data, head, whole=False, **headers):
        asked = None if whole else self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if start >= len(data) > 0:
            return self.answer(416)
        if start:
            start -= self.hub.shifted
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        if head or self.hub.stop_after is None:
            return self.answer(206 if start else 200, part, head, **headers)
        self.answer(206 if start else 200, part[: self.hub.stop_after], False,
                    Content_Length=len(part), **headers)  # fmt: skip
        self.close_connection = True
        return None

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.objects[self.path.rpartition("/")[2]] = body
        self.answer()

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        self.hub.requests.append(("POST", path, None))
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if not self.login():
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(raw)
            repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if repo in self.hub.repos:
                said = {"error": "You already created this repo", "url": f"{self.hub.url}/{repo}"}
                return self.answer(409, said)
            self.hub.repos[repo] = {}
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.add(repo)
            return self.answer(200, {"url": f"{self.hub.url}/{repo}"})
        repo = "/".join(path.split("/")[3:5])
        if "/branch/" in path:
            known = self.hub.branches.setdefault(repo, {"main"})
            branch = unquote(path.partition("/branch/")[2])
            code = 409 if branch in known else 200
            known.add(branch)
            return self.answer(code, {"error": "Reference already exists"} if code > 200 else {})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                for one in json.loads(raw)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if "/preupload/" in path:
            files = [
                {"path": one["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if one["size"] >= 5000 else "regular"}
                for one in json.loads(raw)["files"]
            ]  # fmt: skip
            return self.answer(200, {"files": files})
        if "/commit/" in path:
            if unquote(path.partition("/commit/")[2]) not in self.hub.branches.get(repo, {"main"}):
                return self.answer(404, {}, X_Error_Code="RevisionNotFound")
            for line in map(json.loads, raw.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.hub.repos[repo][value["path"]] = self.hub.objects[value["oid"]]
            oid = commit(self.hub.repos[repo])
            url = f"{self.hub.url}/{repo}/commit/{oid}"
            said = {"success": True, "commitOid": oid, "hookOutput": "", "commitUrl": url}
            return self.answer(200, said)
        return self.answer(404, {"error": "not here"})


def sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def commit(files):
    """A hash of all files, in place of that of a commit."""
    return hashlib.sha1(repr(sorted((n, sha1(d)) for n, d in files.items())).encode()).hexdigest()
