"""What operators get fits the program: settings, compose files, the dashboard, the rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import PREFIX, Settings
from models.home import Home
from models.job_values import Job, JobState
from models.jobs import BUILD_WORKFLOW

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "voucher.json"
RULES = DOCKER / "prometheus" / "rules.yml"

SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
IN_CONTAINERS = {"VOUCHER_HOME", "VOUCHER_HOST", "VOUCHER_PORT"}
"""Fixed by the image and the commands of the containers."""

OF_COMPOSE = {"COMPOSE_PROFILES", "POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD", "SITE_ADDRESS", "EDGE_SUBNET"}
OF_TRACES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def example() -> dict[str, list[str]]:
    """Names in `.env.example` with the values that are given for them."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^# ?([A-Z][A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def test_the_example_names_every_setting_and_no_other() -> None:
    assert set(example()) == SETTINGS | OF_COMPOSE | OF_TRACES


def test_the_example_sets_nothing_by_itself() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert all(not line or line.startswith("#") for line in lines)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_example_shows_the_defaults(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = "" if default in (None, ()) else str(default).lower() if isinstance(default, bool) else str(default)
    assert shown in example()[PREFIX + name.upper()]


def test_an_example_that_is_filled_with_its_defaults_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in example().items():
        if name in SETTINGS:
            monkeypatch.setenv(name, values[-1])
    assert Settings() == Settings.model_construct(**{n: f.default for n, f in Settings.model_fields.items()})


COMPOSED = sorted(path.name for path in DOCKER.glob("compose*.yaml"))


def test_the_composed_service_gets_every_setting() -> None:
    service = read(DOCKER / "compose.yaml")["services"]["voucher"]
    assert set(service["environment"]) == (SETTINGS - IN_CONTAINERS) | OF_TRACES
    fixed = {name for name, value in service["environment"].items() if value is not None}
    assert fixed == {"VOUCHER_ACCESS"}


@pytest.mark.parametrize("name", COMPOSED)
def test_what_compose_files_interpolate_is_in_the_example(name: str) -> None:
    text = (DOCKER / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\$\{([A-Z_]+)", text)) | set(
        re.findall(r"^    environment: ([A-Z_]+)$", text, re.MULTILINE)
    )
    assert named <= set(example())


def test_only_the_service_itself_starts_without_a_profile_and_needs_no_secret() -> None:
    composed = read(DOCKER / "compose.yaml")
    plain = [name for name, service in composed["services"].items() if "profiles" not in service]
    assert plain == ["voucher"]
    assert "secrets" not in composed["services"]["voucher"]
    assert all("full" in service.get("profiles", ["full"]) for service in composed["services"].values())
    assert composed["services"]["voucher"]["depends_on"]["database"]["required"] is False


def test_every_container_is_confined_and_none_is_reached_from_elsewhere_but_the_proxy() -> None:
    for name in COMPOSED:
        for service_name, service in read(DOCKER / name)["services"].items():
            ports = service.get("ports", [])
            if service_name == "proxy":
                assert service["read_only"] is True
            else:
                assert all(port.startswith("127.0.0.1:") for port in ports), service_name
            if name != "compose.gpu.yaml" and "image" in service:
                assert service["cap_drop"] == ["ALL"], service_name
                assert "no-new-privileges:true" in service["security_opt"]
                assert "mem_limit" in service
                assert service["logging"]["options"]["max-size"]


def test_secrets_are_named_nowhere_but_in_the_environment() -> None:
    composed = read(DOCKER / "compose.yaml")
    assert all(set(secret) == {"environment"} for secret in composed["secrets"].values())
    used = {secret for service in composed["services"].values() for secret in service.get("secrets", [])}
    assert used == set(composed["secrets"])
    # Compose cannot give such a secret to a container whose own files are read-only.
    assert not any(service.get("secrets") and service.get("read_only") for service in composed["services"].values())
    grafana = composed["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"


def test_the_public_service_asks_for_keys_and_knows_its_proxy() -> None:
    public = read(DOCKER / "compose.public.yaml")
    environment = public["services"]["voucher"]["environment"]
    assert environment["VOUCHER_ACCESS"] == "keys"
    assert environment["VOUCHER_TRUSTED_PROXIES"] == public["networks"]["edge"]["ipam"]["config"][0]["subnet"]
    caddyfile = (DOCKER / "proxy" / "Caddyfile").read_text(encoding="utf-8")
    assert re.search(r"@private path /metrics", caddyfile)
    assert re.search(r"read_header \d+s", caddyfile)


def test_mounted_files_exist_and_prometheus_asks_the_service() -> None:
    for name in COMPOSED:
        for service in read(DOCKER / name)["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert not source.startswith(".") or (DOCKER / source).exists(), source
    (job, _) = read(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["voucher:8000"]}]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert read(DOCKER / "prometheus" / "prometheus.yml")["rule_files"] == [RULES.name]


def test_grafana_is_provisioned_with_the_dashboard_and_its_source() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    (provider,) = read(provisioning / "dashboards" / "voucher.yaml")["providers"]
    mounts = read(DOCKER / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    sources = {target["datasource"]["uid"] for panel in panels() for target in panel.get("targets", [])}
    assert sources == {source["uid"]}


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]  # type: ignore[no-any-return]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


FUNCTIONS = re.compile(r"\b[a-z_]+(?=\s*\()")
WORDS = re.compile(r"\b(by|without|on|ignoring|group_left|and|or|unless|bool|offset)\b(\s*\([^)]*\))?")


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression: what is left without strings, ranges, functions and groupings."""
    left = re.sub(r'"[^"]*"', "", expression)
    left = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", left)
    left = FUNCTIONS.sub(" ", WORDS.sub(" ", left))
    return set(re.findall(r"\b[a-z][a-z0-9_:]*\b", left))


def test_metrics_are_found_in_expressions() -> None:
    expression = 'histogram_quantile(0.9, sum by (le, stage) (rate(a_bucket{x="b_total"}[5m]))) > 1e9 and c_d == 2'
    assert metrics_of(expression) == {"a_bucket", "c_d"}


def expressions() -> list[tuple[str, str]]:
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found += [(each["name"], each["expr"]) for each in dashboard["annotations"]["list"]]
    found += [(rule["alert"], rule["expr"]) for group in read(RULES)["groups"] for rule in group["rules"]]
    return found


@pytest.fixture(scope="module")
def served_metrics(trained_home: Home) -> set[str]:
    """Names of all samples that the service can give."""
    job = Job(
        *("build-1", BUILD_WORKFLOW, JobState.FAILED, "2026-01-01T00:00:00+00:00"),
        *("2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00", "", {}, None, None, "no room"),
    )
    settings = Settings(home=trained_home.root, device="cpu", worker=False, metrics="open")
    with TestClient(create_app(settings)) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.app.state.jobs, "list", lambda **given: [job])
        text = client.get("/metrics").text
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_there_are_expressions_to_check() -> None:
    assert len(expressions()) > 40


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_metric_that_operators_look_at_is_served(served_metrics: set[str], where: str, expression: str) -> None:
    named = metrics_of(expression)
    assert named
    assert named - {"up"} <= served_metrics, where


def test_every_metric_of_the_service_is_looked_at(served_metrics: set[str]) -> None:
    looked_at = {re.sub("_(bucket|sum|count)$", "", name) for _, text in expressions() for name in metrics_of(text)}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in served_metrics if name.startswith("voucher_")}
    assert ours - looked_at <= {"voucher_last_build_timestamp_seconds"}


def test_every_rule_says_what_to_do() -> None:
    for group in read(RULES)["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["remedy"]


def test_rules_fire_when_they_should() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    for command in (
        ["check", "rules", "--lint-fatal", str(RULES)],
        ["test", "rules", str(Path(__file__).with_name("prometheus_rules.yml"))],
    ):
        done = subprocess.run([program, *command], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
