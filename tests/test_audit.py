"""What scripts/audit makes of advisories. Nothing here uses a network."""

import datetime

import _audit as audit
import pytest

TODAY = datetime.date(2026, 11, 25)
REPORT = {
    "dependencies": [
        {"name": "six", "version": "1.17.0", "vulns": []},
        {"name": "Keras", "version": "3.0.0", "vulns": [{"id": "PYSEC-2025-1", "aliases": ["CVE-2025-1550"]}]},
    ]
}
ENTRY = {"id": "CVE-2025-1550", "package": "keras", "reason": "loads no models", "review": TODAY}


def verdict(report=REPORT, allowed=(ENTRY,), today=TODAY):
    return audit.problems(*audit.read_report(report), list(allowed), today)


def test_audit_passes_what_is_allowed_until_its_date():
    assert verdict() == []
    [late] = verdict(today=TODAY + datetime.timedelta(days=1))
    assert "due for review since 2026-11-25: CVE-2025-1550" in late


@pytest.mark.parametrize(
    "allowed",
    [[], [{**ENTRY, "id": "CVE-2025-1551"}], [{**ENTRY, "package": "tf-keras"}]],
    ids=["none", "id", "package"],
)
def test_audit_fails_on_what_is_not_allowed(allowed):
    assert "advisory without an entry: keras 3.0.0: CVE-2025-1550, PYSEC-2025-1" in verdict(allowed=allowed)


def test_audit_fails_without_a_reason_and_on_an_entry_of_the_past():
    assert "no reason" in verdict(allowed=[{**ENTRY, "reason": " "}])[0]
    assert "its entry can go" in verdict({"dependencies": []})[0]


def test_audit_fails_when_a_package_could_not_be_looked_up():
    skipped = {"name": "six", "skip_reason": "six (1.17.0) was not found"}
    assert verdict({"dependencies": [*REPORT["dependencies"], skipped]}) == [
        "not looked up: six (1.17.0) was not found"
    ]


def test_every_allowed_advisory_says_why_and_until_when():
    for entry in audit.read_allowed():
        assert set(entry) == {"id", "package", "reason", "review"}
        assert isinstance(entry["review"], datetime.date) and len(entry["reason"]) > 20
