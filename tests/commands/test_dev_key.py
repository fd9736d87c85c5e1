"""When there is a development key, and where it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.dev_key import FILE, NoKeys, choose_key
from gateway.store.data_dir import DataDirUnusable


def test_a_first_start_makes_a_key_and_a_second_keeps_it(tmp_path: Path) -> None:
    """The key in a shell's history works after a restart."""
    data_dir = tmp_path / "new"
    key = choose_key(data_dir, fixed=None, loopback=True, stored_keys=0)
    assert key is not None
    assert key.startswith("gwk_")
    assert len(key) > 40
    assert choose_key(data_dir, fixed=None, loopback=True, stored_keys=0) == key


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    """Another user of the machine cannot read it, whoever made the file before."""
    (tmp_path / "dev.key").write_text("gwk_old\n")
    (tmp_path / "dev.key").chmod(0o644)
    assert choose_key(tmp_path, fixed=None, loopback=True, stored_keys=0) == "gwk_old"
    assert ((tmp_path / "dev.key").stat().st_mode & 0o777) == 0o600


def test_a_fixed_key_is_used_and_kept_for_clients_to_find(tmp_path: Path) -> None:
    """GATEWAY_DEV_KEY wins over the kept one, and stored keys do not turn it off."""
    choose_key(tmp_path, fixed=None, loopback=True, stored_keys=0)
    assert choose_key(tmp_path, fixed="chosen-key", loopback=True, stored_keys=3) == "chosen-key"
    assert (tmp_path / "dev.key").read_text() == "chosen-key\n"


def test_stored_keys_leave_no_development_key(tmp_path: Path) -> None:
    """Once somebody made keys, those rule."""
    assert choose_key(tmp_path, fixed=None, loopback=True, stored_keys=1) is None
    assert not (tmp_path / "dev.key").exists()


@pytest.mark.parametrize("fixed", [None, "chosen-key"])
def test_without_keys_nobody_else_s_machine_is_served(tmp_path: Path, fixed: str | None) -> None:
    """On an address that others reach a development key counts for nothing."""
    with pytest.raises(NoKeys, match="gateway keys create"):
        choose_key(tmp_path, fixed=fixed, loopback=False, stored_keys=0)
    assert choose_key(tmp_path, fixed=fixed, loopback=False, stored_keys=1) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_spoilt_file_gets_a_new_key(tmp_path: Path, content: bytes) -> None:
    """An empty or unreadable key file is no key."""
    (tmp_path / "dev.key").write_bytes(content)
    key = choose_key(tmp_path, fixed=None, loopback=True, stored_keys=0)
    assert key is not None
    assert key.startswith("gwk_")


def test_a_key_that_stands_needs_no_room(tmp_path: Path) -> None:
    """A gateway that begins again with the key that it had writes nothing: the disk may be full."""
    key = choose_key(tmp_path, fixed=None, loopback=True, stored_keys=0)
    before = (tmp_path / FILE).stat()
    assert choose_key(tmp_path, fixed=key, loopback=True, stored_keys=0) == key
    after = (tmp_path / FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_key_that_cannot_be_kept_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Where the file cannot be written the gateway says which, and why."""
    (tmp_path / "dev.key.new").mkdir()
    with pytest.raises(DataDirUnusable, match=r"development key cannot be kept in .*dev\.key: "):
        choose_key(tmp_path, fixed="key", loopback=True, stored_keys=0)
