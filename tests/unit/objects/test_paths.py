"""safe_join, fuzzed: whatever the text, the result is inside the root, or it is refused."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.errors import InvalidArgument
from penstock.objects import safe_join

NASTY = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["..", ".", "", "a", "b.c", "~", "\\", "\x00", "…", "C:", "/", "link"]), max_size=8).map(
        "/".join
    ),
)


@given(NASTY)
@example("../x")
@example("/etc/passwd")
@example("a/../../x")
@example("\ud800")
@example("a" * 256)
@example("a/" * 1500 + "a")
def test_the_result_is_inside_or_refused(relative: str) -> None:
    root = Path("/srv/penstock/root")
    try:
        joined = safe_join(root, relative)
    except InvalidArgument as error:
        assert error.violations[0].field == "path"
        return
    assert os.path.normpath(joined) == str(joined)
    assert joined.is_relative_to(root)
    assert joined != root
    assert joined.relative_to(root).as_posix() == relative


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20), min_size=1, max_size=5))
def test_plain_paths_are_accepted(parts: list[str]) -> None:
    assert safe_join(Path("/srv/root"), "/".join(parts)) == Path("/srv/root", *parts)


@pytest.mark.parametrize("target", ["..", "/etc", "."])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(target)
    (root / "inside").mkdir()
    (root / "good").symlink_to("inside")
    if target != ".":
        with pytest.raises(InvalidArgument, match="link"):
            safe_join(root, "link/passwd")
    with pytest.raises(InvalidArgument, match="link"):
        safe_join(root, "link")
    assert safe_join(root, "good/x") == root / "good" / "x"


def test_the_field_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        safe_join(Path("/srv"), "..", field="files.path")
    assert caught.value.violations[0].field == "files.path"
