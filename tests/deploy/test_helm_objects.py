"""What Kubernetes gets from the chart's four sets of values: valid objects that fit each other."""

import re
import shutil
import subprocess

import pytest

from stream.load_config import load
from tests.deploy.chart import (
    CHART,
    EXAMPLES,
    GOLDEN,
    MISSING,
    ROOT,
    containers,
    golden,
    helm,
    objects_of,
    of_kind,
    pods,
    render,
    run,
    set_in,
    template,
    values_of,
)

yaml = pytest.importorskip("yaml", reason="no PyYAML: pip install -e '.[ops]'")

pytestmark = [pytest.mark.ops, pytest.mark.skipif(helm() is None, reason=MISSING)]

KUBERNETES = ("1.30", "1.33", "1.37")
"""The oldest that Chart.yaml allows, one between, and the newest with a schema."""
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"}
"""Kinds of operators, which Kubernetes has no schema for."""

by_example = pytest.mark.parametrize("example", EXAMPLES)


@by_example
def test_helm_lint_finds_nothing(example):
    done = run("lint", str(CHART), "--strict", *values_of(example))
    assert done.returncode == 0, done.stdout


@by_example
def test_the_render_is_the_one_that_was_read_and_kept(example):
    kept = (GOLDEN / f"{example}.yaml").read_text()
    assert golden(example) == kept, "read the difference, then run `python -m tests.deploy.chart`"


@by_example
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_object_and_every_field(example, version):
    validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate: pip install -e '.[ops]'")
    for thing in objects_of(render(example)):
        if thing["kind"] not in CUSTOM:
            assert validate.validate(thing, version, strict=True) == version


@by_example
def test_everything_that_a_pod_refers_to_is_in_the_chart_or_named_in_the_values(example):
    objects = objects_of(render(example))
    made = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    values = yaml.safe_load((CHART / f"examples/{example}.yaml").read_text())
    outside = set(re.findall(r"existingSecret': '([^']+)'", str(values)))
    hooks = {key for key, o in made.items() if "helm.sh/hook" in o["metadata"].get("annotations", {})}
    for name, spec, _ in pods(objects):
        volumes = spec.get("volumes", [])
        names = [("Secret", volume["secret"]["secretName"]) for volume in volumes if "secret" in volume]
        names += [("ConfigMap", volume["configMap"]["name"]) for volume in volumes if "configMap" in volume]
        claims = {"data"} if name.endswith(("-learner", "-worker")) else set()
        for container in spec["containers"]:
            sources = [variable.get("valueFrom", {}) for variable in container.get("env", [])]
            names += [("Secret", source["secretKeyRef"]["name"]) for source in sources if "secretKeyRef" in source]
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= {volume["name"] for volume in volumes} | claims, name
        if "serviceAccountName" in spec:
            names.append(("ServiceAccount", spec["serviceAccountName"]))
        for kind, wanted in names:
            assert (kind, wanted) in made or wanted in outside, f"{name} needs the {kind} {wanted}"
            if name.endswith("-init"):
                assert (kind, wanted) in hooks or wanted in outside, f"{wanted} is not there before init"


@by_example
def test_every_selector_finds_pods_and_every_port_is_a_containers(example):
    objects = objects_of(render(example))
    found = {name: (spec, labels) for name, spec, labels in pods(objects)}
    for thing in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = thing["spec"].get("selector") or thing["spec"]["podSelector"]
        wanted = selector.get("matchLabels", selector)
        selected = [spec for spec, labels in found.values() if wanted.items() <= labels.items()]
        assert selected, thing["metadata"]["name"]
        ports = {port["name"] for pod in selected for c in pod["containers"] for port in c.get("ports", [])}
        if thing["kind"] == "Service":
            assert {port["targetPort"] for port in thing["spec"]["ports"]} <= ports
    controllers = [o["spec"]["selector"]["matchLabels"] for o in of_kind(objects, "StatefulSet", "Deployment")]
    for name, (_, labels) in found.items():
        assert sum(wanted.items() <= labels.items() for wanted in controllers) <= 1, f"two controllers select {name}"


def test_the_number_of_workers_includes_the_learner():
    sets = of_kind(objects_of(render("production")), "StatefulSet")
    assert {o["metadata"]["name"]: o["spec"]["replicas"] for o in sets} == {
        "anabranch-learner": 1,
        "anabranch-worker": 2,
    }
    roles = {o["metadata"]["name"]: [c["name"] for c in o["spec"]["template"]["spec"]["containers"]] for o in sets}
    assert roles == {"anabranch-learner": ["worker", "trainer"], "anabranch-worker": ["worker"]}


def test_keda_scales_the_workers_beside_the_learner_up_to_one_for_each_partition():
    objects = objects_of(render("autoscaled"))
    [scaled] = of_kind(objects, "ScaledObject")
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (1, 7)
    [workers] = [o for o in of_kind(objects, "StatefulSet") if o["metadata"]["name"] == "anabranch-worker"]
    assert "replicas" not in workers["spec"], "an upgrade would reset what KEDA has decided"
    [deployment] = of_kind(objects, "Deployment")
    assert "replicas" not in deployment["spec"]


def test_keda_signs_in_as_the_workers_do():
    objects = objects_of(render("autoscaled"))
    [scaled] = of_kind(objects, "ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    assert (trigger["metadata"]["sasl"], trigger["metadata"]["tls"]) == ("scram_sha512", "enable")
    [authentication] = of_kind(objects, "TriggerAuthentication")
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    given = {ref["parameter"]: (ref["name"], ref["key"]) for ref in authentication["spec"]["secretTargetRef"]}
    assert given == {
        "username": ("anabranch-kafka-user", "username"),
        "password": ("anabranch", "password"),
        "ca": ("kafka-cluster-ca-cert", "ca.crt"),
    }


def test_a_prefix_names_the_group_and_the_topic_that_keda_looks_at():
    [scaled] = of_kind(set_in("autoscaled", 'config.topics.prefix="second-"'), "ScaledObject")
    metadata = scaled["spec"]["triggers"][0]["metadata"]
    config = load(None, {"ANABRANCH_CONFIG": "/dev/null", "ANABRANCH_TOPICS__PREFIX": "second-"})
    assert (metadata["consumerGroup"], metadata["topic"]) == (config.group, config.topics.clicks)


@pytest.mark.parametrize("change", ["config.trainer.every_s=60", 'secrets.signingKey.value="another-key-of-16"'])
def test_a_change_of_the_configuration_restarts_the_pods(change):
    def marks(objects: list[dict]) -> set[str]:
        sets = of_kind(objects, "StatefulSet", "Deployment")
        return {o["spec"]["template"]["metadata"]["annotations"]["anabranch/configuration"] for o in sets}

    assert not marks(objects_of(render("minimal"))) & marks(set_in("minimal", change))


def test_names_stay_within_kubernetes_limit():
    for thing in objects_of(template(*values_of("production"), release="a" * 53).stdout):
        name = thing["metadata"]["name"]
        # The controller adds a revision of ten characters to what it creates, and pods carry it as a label.
        assert len(name) + 11 <= 63, name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on the PATH")
def test_prometheus_accepts_the_rules(tmp_path):
    [rules] = of_kind(objects_of(render("locked-down")), "PrometheusRule")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rules["spec"]))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 rules" not in done.stdout


def test_the_monitor_reads_every_port_under_the_jobs_that_the_rules_ask_for():
    objects = objects_of(render("locked-down"))
    [monitor] = of_kind(objects, "ServiceMonitor")
    services = of_kind(objects, "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert all(wanted.items() <= service["metadata"]["labels"].items() for service in services)
    endpoints = monitor["spec"]["endpoints"]
    assert {e["port"] for e in endpoints} == {port["name"] for service in services for port in service["spec"]["ports"]}
    given = {r["replacement"] for e in endpoints for r in e["relabelings"] if r["targetLabel"] == "job"}
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    assert given == {job["job_name"] for job in scrape["scrape_configs"] if job["job_name"].startswith("anabranch-")}


def test_only_what_is_listed_reaches_a_pod_of_the_locked_down_chart():
    objects = objects_of(render("locked-down"))
    policies = {o["metadata"]["name"]: o["spec"] for o in of_kind(objects, "NetworkPolicy")}
    everything = policies["anabranch"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    for name, _, labels in pods(objects):
        assert everything["podSelector"]["matchLabels"].items() <= labels.items(), f"{name} is open"
    for spec in policies.values():
        for rule in spec.get("ingress", []):
            assert rule["from"], "an empty list allows everybody"
            assert rule["ports"]
    assert {port["port"] for rule in everything["egress"] for port in rule["ports"]} == {53, 9092, 443}


def test_the_test_asks_every_pod_that_there_is():
    objects = objects_of(render("production"))
    [test] = [container for _, container in containers(objects) if container["name"] == "test"]
    hosts = {re.split(r"[:/.]+", url)[1] for url in test["args"][1:]}
    assert hosts == {"anabranch-learner-0", "anabranch-worker-0", "anabranch-worker-1", "anabranch-serve"}
    compile(test["args"][0], "the test's program", "exec")
