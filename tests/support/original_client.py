"""A client of the original MAO Orchestrator, rewritten from its README and API pages.

Each method is one command of its CLI: it returns what that command printed and parses the answer in the same
way, so that an incompatible answer raises here as well. `OriginalInstaller` does what its installer did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import requests

JsonObject = dict[str, Any]


class OriginalClient:
    """Send requests through the library that the original's clients use, with its headers."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = requests.Session()
        self._http.trust_env = False

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self._http.request(method, f"{self._url}/{path}", json=body, timeout=60)

    # tool

    def tool_get(self, name: str | None = None) -> Any:
        return self.call("GET", f"registry/tools/{name}" if name else "registry/tools").json()

    def tool_add(
        self, name: str, author: str, image: str, data_repo: str, code_repo: str, artefact: str
    ) -> Any:
        fields = {"name": name, "author": author, "image": image}
        fields |= {"data_repo": data_repo, "code_repo": code_repo, "artefact": artefact}
        return self.call("POST", "registry/tools", fields).json()

    def tool_remove(self, name: str) -> Any:
        return self.call("DELETE", f"registry/tools/{name}").json()

    def tool_list_scheduled(self) -> Any:
        return self.call("GET", "jobs").json()

    def tool_stop(self, job: str) -> Any:
        return self.call("DELETE", f"jobs/{job}").json()

    # dataset

    def dataset_get(self, name: str | None = None) -> Any:
        return self.call("GET", f"registry/datasets/{name}" if name else "registry/datasets").json()

    def dataset_add(self, name: str, git_url: str) -> Any:
        body = {"name": name, "body": {"master": git_url, "nodes": []}}
        return self.call("POST", "registry/datasets", body).json()

    def dataset_remove(self, name: str) -> str:
        gone = self.call("DELETE", f"registry/datasets/{name}").ok
        return f"'{name}' is deleted" if gone else f"'{name}' could not be deleted"

    # pipeline

    def pipeline_get(self, name: str | None = None) -> Any:
        if name:
            return self.call("GET", f"registry/pipelines/{name}").json()
        return [pipeline["name"] for pipeline in self.call("GET", "pipeline").json()]

    def pipeline_add(self, name: str, description: str, steps: Sequence[JsonObject]) -> Any:
        """Create a pipeline and return it, or the errors. Build steps with `make_step`."""
        made = self.call(
            "POST", "pipeline/init", {"name": name, "description": description, "steps": list(steps)}
        )
        return made.json() if made.ok else made.json()["errors"]

    def pipeline_run(self, name: str, cron: str | None = None) -> Any:
        return self.call("POST", "pipeline/run", {"name": name, "cron": cron}).json()

    # repo

    def repo_add(self, name: str) -> Any:
        return self.call("POST", "bare-repo/init", {"name": name}).json()


def make_step(name: str, tool: str, input_dataset: str, output_dataset: str) -> JsonObject:
    """Build a step as the original CLI did; it never asked for a command or an environment."""
    return {
        "name": name,
        "tool": tool,
        "input_dataset": input_dataset.strip() or None,
        "output_dataset": output_dataset,
        "docker_socket": False,
        "cmd": [],
        "env": {},
    }


class OriginalInstaller(OriginalClient):
    """The steps of the command `instance init`: compare, register what is missing, and schedule."""

    def tools(self) -> list[JsonObject]:
        """List the names, then fetch each tool; the original sent JSON text within a JSON string."""
        return [json.loads(self.tool_get(name)) | {"name": name} for name in self.tool_get()]

    def datasets(self) -> list[JsonObject]:
        return [json.loads(self.dataset_get(name)) | {"name": name} for name in self.dataset_get()]

    def pipelines(self) -> list[JsonObject]:
        """List the instance's pipelines with `federation_registered`, derived from the status alone."""
        found: list[JsonObject] = []
        for pipeline in self.call("GET", "pipeline").json():
            status = self.call("GET", f"registry/pipelines/{pipeline['name']}").status_code
            found.append(pipeline | {"federation_registered": status == 200})
        return found

    def install(self, pipeline: JsonObject, market: Sequence[JsonObject]) -> JsonObject:
        """Set up a pipeline, registering everything missing, and return the last answer."""
        result = self._init(pipeline)
        if not result.get("ok", False) and (missing := result["errors"]["missing_datasets"]):
            for name in missing:
                self.dataset_add(name, self.repo_add(name)["path"])
            result = self._init(pipeline)
        if not result.get("ok", False) and (missing := result["errors"]["missing_tools"]):
            for tool in market:
                if tool["name"] in missing:
                    self.call("POST", "registry/tools", tool).raise_for_status()
            result = self._init(pipeline)
        return result

    def _init(self, pipeline: JsonObject) -> JsonObject:
        answer: JsonObject = self.call("POST", "pipeline/init", pipeline).json()
        return answer
