"""Templates become paths that OpenAPI can hold."""

from __future__ import annotations

import pytest

from ingestor.transport.transcoding.openapi.paths import Spellings, read_template


@pytest.mark.parametrize(
    ("template", "path", "names"),
    [
        ("/v1/metrics:batch", "/v1/metrics:batch", []),
        ("/v1/{a}/b/{c.d}:go", "/v1/{a}/b/{c.d}:go", ["a", "c.d"]),
        ("/v1/{a.b=x/*}", "/v1/x/{a.b}", ["a.b"]),
        ("/v1/{a=x/*/y/**}:go", "/v1/x/{a_1}/y/{a_2}:go", ["a_1", "a_2"]),
        ("/v1/{a=x}/z", "/v1/x/z", []),
        ("/v1/*/{a=**}", "/v1/{wildcard_1}/{a}", ["wildcard_1", "a"]),
    ],
)
def test_each_wildcard_is_a_parameter(template: str, path: str, names: list[str]) -> None:
    """Literals stay, also those within a variable, and so does the verb."""
    read = read_template(template, lambda field: field)
    assert (read.text, [variable.name for variable in read.variables]) == (path, names)


def test_paths_that_differ_in_names_alone_are_one() -> None:
    """But for a second operation of the same method, which matches other paths and would be lost otherwise."""
    spellings = Spellings()
    spelled = [
        spellings.spell(method, read_template(template, lambda field: field)).text
        for method, template in (
            ("get", "/v1/{a}"),
            ("patch", "/v1/{b.a}"),
            ("get", "/v1/{c=**}"),
            ("get", "/v1/{a=**}"),
        )
    ]
    assert spelled == ["/v1/{a}", "/v1/{a}", "/v1/{c}", "/v1/{a_}"]
