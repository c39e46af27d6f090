"""A visitor without a browser: the requests that the page sends, and any others."""

import json
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import gradio as gr

API = "/gradio_api"


class Client:
    """One session at a page."""

    def __init__(self, page: gr.Blocks, address: str):
        self.address, self.session = address.rstrip("/"), uuid.uuid4().hex
        self.functions = {fn.api_name: number for number, fn in page.fns.items()}
        parts = page.get_config_file()["components"]
        self.example = next(part["props"].get("value") for part in parts if part["props"].get("label") == "Photo")

    def fields(self, **changes: Any) -> list[Any]:
        """The page's fields in their order: the example, quickly."""
        values = {
            "photo": self.example, "movement": "example", "driving": None, "poses": None, "seed": 1,
            "preset": "default", "steps": 2, "width": 64, "height": 64, "faces": "off", "align": "linear",
            "sound": False,
        }  # fmt: skip
        assert changes.keys() <= values.keys()
        return list((values | changes).values())

    def request(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of an answer; `body` is sent as JSON, or as it is where it is bytes."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            with urlopen(Request(self.address + path, data, headers or {"Content-Type": "application/json"})) as answer:
                return answer.status, answer.read()
        except HTTPError as e:
            with e:
                return e.code, e.read()

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        """Send a file; gives what stands for it in a field."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name or path.name}"\r\n\r\n'
        status, body = self.request(
            f"{API}/upload",
            head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode(),
            {"Content-Type": f"multipart/form-data; boundary={mark}"},
        )
        assert status == 200, body
        return {"path": json.loads(body)[0], "meta": {"_type": "gradio.FileData"}}

    def begin(self, name: str, values: list[Any]) -> tuple[int, bytes]:
        """Join the queue."""
        number = self.functions[name]
        body = {
            "data": values,
            "fn_index": number,
            "session_hash": self.session,
            "event_data": None,
            "trigger_id": None,
        }
        return self.request(f"{API}/queue/join", body)

    def messages(self) -> list[dict[str, Any]]:
        """What the queue says of the session's jobs, until they have ended."""
        with urlopen(f"{self.address}{API}/queue/data?session_hash={self.session}") as answer:
            return [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]

    def call(self, name: str, values: list[Any]) -> dict[str, Any]:
        """Run a function of the page; gives the queue's last word of it: "success" and "output"."""
        status, body = self.begin(name, values)
        assert status == 200, body
        (done,) = (message for message in self.messages() if message["msg"] == "process_completed")
        return done

    def at_once(self, name: str, values: list[Any]) -> tuple[int, Any]:
        """As `call`, for a function that does not wait in the queue."""
        body = {"data": values, "fn_index": self.functions[name], "session_hash": self.session}
        status, text = self.request(f"{API}/run/{name}", body)
        return status, json.loads(text)

    def leave(self) -> None:
        """Open the line by which the page shows that it is there, and drop it."""
        with urlopen(f"{self.address}{API}/heartbeat/{self.session}") as line:
            line.readline()
