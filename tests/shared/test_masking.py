"""Masking of secrets by one rule."""

from __future__ import annotations

import pytest

from mao_shared.logs import MASK, looks_secret, mask_command, mask_env


def test_mask_environment_keeps_names_and_plain_values() -> None:
    env = {"API_KEY": "x", "YEARS": "2024", "DB": "postgres://me:geheim@db/x", "AUTHOR": "A. Scientist"}
    assert mask_env(env) == {
        "API_KEY": MASK,
        "AUTHOR": "A. Scientist",
        "DB": f"postgres://{MASK}@db/x",
        "YEARS": "2024",
    }


SECRET_NAMES = (
    "PGPASS SSH_KEY SSHKEY COOKIE HTTP_COOKIES AUTH BEARER PIN CARD_PIN MAIL_PASS DB_PWD api-key SESSION "
    "X_SIGNATURE GITHUB_TOKEN CLIENT_SECRET passphrase"
)


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_mask_environment_secret_names(name: str) -> None:
    assert mask_env({name: "geheim"}) == {name: MASK}
    assert looks_secret(name, "geheim")


@pytest.mark.parametrize(
    "name", ["AUTHOR", "KEYWORDS", "PINNED", "COMPASS", "MONKEY", "SESSIONS_PER_DAY", "BYPASS", "LANG"]
)
def test_mask_environment_keeps_other_names(name: str) -> None:
    assert mask_env({name: "plain"}) == {name: "plain"}
    assert not looks_secret(name, "plain")
    assert looks_secret(name, "ghp_" + "a1" * 18)


@pytest.mark.parametrize(
    ("words", "masked"),
    [
        (["crawl", "--password", "geheim", "hub"], ["crawl", "--password", MASK, "hub"]),
        (["crawl", "--api-key=geheim"], ["crawl", f"--api-key={MASK}"]),
        (["crawl", "--key=geheim"], ["crawl", f"--key={MASK}"]),
        (["crawl", "--auth", "geheim"], ["crawl", "--auth", MASK]),
        (["crawl", "--keywords", "a"], ["crawl", "--keywords", "a"]),
        (["crawl", "--tokens", "--all"], ["crawl", "--tokens", "--all"]),
        (["sh", "-c", "echo the token = 3"], ["sh", "-c", "echo the token = 3"]),
        (["crawl", "ghp_" + "a1" * 18], ["crawl", MASK]),
        (["crawl", "https://me:geheim@example.org/x"], ["crawl", f"https://{MASK}@example.org/x"]),
    ],
)
def test_mask_command_without_its_secrets(words: list[str], masked: list[str]) -> None:
    assert mask_command(words) == masked
