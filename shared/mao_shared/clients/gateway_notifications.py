"""MaoClient's calls about who is told of alarms: channels, rules, heartbeats, messages."""

from __future__ import annotations

from collections.abc import Iterator

from mao_shared.models.notification import (
    ChannelRequest,
    ChannelState,
    HeartbeatRequest,
    HeartbeatState,
    Message,
    Rule,
    SendResult,
    UrlComparison,
    UrlToCompare,
)

from .gateway_http import GatewayHttp, url_path
from .responses import dump_body, request_body

TEST_TIMEOUT = 90.0  # seconds; the service itself may take a minute


class NotificationCalls:
    """Channels, the rules for them, heartbeats, and what was sent."""

    def __init__(self, http: GatewayHttp) -> None:
        self.http = http

    def channels(self) -> Iterator[ChannelState]:
        return iter(self.http.items("/channels", ChannelState))

    def channel(self, name: str) -> ChannelState:
        return self.http.get(url_path("channels", name), ChannelState)

    def add_channel(self, request: ChannelRequest) -> ChannelState:
        """Add a channel. Raises InvalidInput if its URL is not one that Apprise can use."""
        return self.http.call(
            "POST", "/channels", ChannelState, json=dump_body(request), timeout=TEST_TIMEOUT
        )

    def put_channel(self, request: ChannelRequest) -> ChannelState:
        """Add a channel, or give one another URL. Raises InvalidInput as `add_channel`."""
        path = url_path("channels", request.name)
        return self.http.call("PUT", path, ChannelState, json=dump_body(request), timeout=TEST_TIMEOUT)

    def is_url_of_channel(self, name: str, url: str) -> bool:
        """Return whether this is the channel's URL, which the node does not show."""
        return self._compare(url_path("channels", name, "compare"), url)

    def is_url_of_heartbeat(self, pipeline: str, url: str) -> bool:
        """Return whether this is the heartbeat's address, which the node does not show."""
        return self._compare(url_path("heartbeats", pipeline, "compare"), url)

    def _compare(self, path: str, url: str) -> bool:
        return self.http.call("POST", path, UrlComparison, json=request_body(UrlToCompare, url=url)).same

    def remove_channel(self, name: str) -> None:
        self.http.execute("DELETE", url_path("channels", name))

    def test_channel(self, name: str) -> SendResult:
        """Send a test message now."""
        return self.http.call("POST", url_path("channels", name, "test"), SendResult, timeout=TEST_TIMEOUT)

    def rules(self) -> Iterator[Rule]:
        return iter(self.http.items("/rules", Rule))

    def rule(self, name: str) -> Rule:
        return self.http.get(url_path("rules", name), Rule)

    def set_rule(self, rule: Rule) -> Rule:
        """Add or replace a rule."""
        return self.http.call("PUT", url_path("rules", rule.name), Rule, json=dump_body(rule))

    def remove_rule(self, name: str) -> None:
        self.http.execute("DELETE", url_path("rules", name))

    def heartbeats(self) -> Iterator[HeartbeatState]:
        return iter(self.http.items("/heartbeats", HeartbeatState))

    def heartbeat(self, pipeline: str) -> HeartbeatState:
        return self.http.get(url_path("heartbeats", pipeline), HeartbeatState)

    def set_heartbeat(self, pipeline: str, url: str) -> HeartbeatState:
        body = request_body(HeartbeatRequest, url=url)
        return self.http.call("PUT", url_path("heartbeats", pipeline), HeartbeatState, json=body)

    def remove_heartbeat(self, pipeline: str) -> None:
        self.http.execute("DELETE", url_path("heartbeats", pipeline))

    def test_heartbeat(self, pipeline: str) -> SendResult:
        """Ping the address now."""
        return self.http.call("POST", url_path("heartbeats", pipeline, "test"), SendResult)

    def messages(self, channel: str | None = None, about: str | None = None) -> Iterator[Message]:
        """Yield the messages, those to a channel or about an alarm or run if given."""
        return self.http.pages("/messages", Message, {"channel": channel, "about": about})
