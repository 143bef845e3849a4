"""The manifests keep what the service's table of processes promises: who holds keys, and who may reach whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

from service.api.health import LIVE
from service.main import cli, config
from service.main.shapes import parts

HERE = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
EXAMPLES = HERE / "example"
ROLES = ("api", "scheduler", "signer", "redis", "worker-cpu", "worker-gpu")
OURS = tuple(role for role in ROLES if role != "redis")

ARROWS = {
    "api": {"database:5432", "dns:53"},
    "scheduler": {"database:5432", "redis:6379", "dns:53", "public:443"},
    "signer": {"database:5432"},
    "redis": set(),
    "migrate": {"database:5432", "dns:53"},
    "worker": {"database:5432", "redis:6379", "dns:53"},
}
"""Whom each part may call; every call that is not here is denied."""


def _all() -> list[dict[str, Any]]:
    files = sorted((HERE / "base").glob("*.yaml")) + sorted((HERE / "migrate").glob("*.yaml"))
    read = [one for path in files for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [one for one in read if one["kind"] != "Kustomization"]


OBJECTS = _all()
WORKLOADS = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] in ("Deployment", "Job")}
POLICIES = [one for one in OBJECTS if one["kind"] == "NetworkPolicy"]


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return spec


def containers(name: str) -> list[dict[str, Any]]:
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def secrets_of(name: str) -> set[str]:
    return {one["secret"]["secretName"] for one in pod(name)["volumes"] if "secret" in one}


def claims_of(name: str) -> dict[str, bool]:
    """Claim -> whether the pod may write it."""
    found = {}
    for volume in pod(name)["volumes"]:
        if "persistentVolumeClaim" in volume:
            mounts = [m for c in containers(name) for m in c.get("volumeMounts", []) if m["name"] == volume["name"]]
            claim = volume["persistentVolumeClaim"]["claimName"]
            found[claim] = any(not mount.get("readOnly", False) for mount in mounts)
    return found


def test_the_base_lists_every_file_and_names_no_cluster() -> None:
    listed = yaml.safe_load((HERE / "base" / "kustomization.yaml").read_text())["resources"]
    present = {path.name for path in (HERE / "base").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == present
    for one in OBJECTS:
        for key in ("storageClassName", "nodeSelector", "loadBalancerIP", "clusterIP"):
            assert key not in str(one), f"{one['metadata']['name']} names {key}: that is the overlay's"


def test_every_role_of_the_table_is_there() -> None:
    assert set(WORKLOADS) == {*ROLES, "migrate"}


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_no_pod_is_root_writes_its_root_or_holds_a_token(name: str) -> None:
    spec = pod(name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert key not in spec
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for one in containers(name):
        walls = one["securityContext"]
        assert walls["readOnlyRootFilesystem"] is True
        assert walls["allowPrivilegeEscalation"] is False
        assert walls["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in walls


def test_accounts_have_no_token_and_no_rights() -> None:
    accounts = {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == "ServiceAccount"}
    assert all(one["automountServiceAccountToken"] is False for one in accounts.values())
    assert not any("Role" in one["kind"] for one in OBJECTS)
    used = [pod(name)["serviceAccountName"] for name in ("api", "scheduler", "signer", "redis", "worker-cpu")]
    assert len(set(used)) == len(used), "each role has an account of its own"
    assert set(used) == set(accounts)


def test_only_workers_are_let_out_of_the_strict_room() -> None:
    levels = {
        one["metadata"]["name"]: one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for one in OBJECTS
        if one["kind"] == "Namespace"
    }
    assert levels == {"assay": "restricted", "assay-workers": "privileged"}
    for name, one in WORKLOADS.items():
        is_worker = name.startswith("worker-")
        assert one["metadata"]["namespace"] == ("assay-workers" if is_worker else "assay")
        seccomp = pod(name)["securityContext"]["seccompProfile"]["type"]
        assert seccomp == ("Unconfined" if is_worker else "RuntimeDefault")
        unmasked = any(c["securityContext"].get("procMount") == "Unmasked" for c in containers(name))
        assert unmasked is is_worker
        assert (pod(name).get("hostUsers") is False) is is_worker, "procMount Unmasked needs hostUsers: false"


def test_keys_are_mounted_into_the_signer_alone() -> None:
    assert {name for name in WORKLOADS if "signer-keys" in secrets_of(name)} == {"signer"}
    # With fsGroup a Secret's files are readable by the group, which the signer refuses: it gets copies of mode 0400.
    (copy,) = pod("signer")["initContainers"]
    assert copy["command"][:3] == ["install", "-m", "0400"]
    given = config.load(EXAMPLES / "signer.toml")
    assert {str(given.signing_key), str(given.log_key)} == {
        f"{copy['command'][-1]}/{Path(key).name}" for key in copy["command"][3:-1]
    }
    main = pod("signer")["containers"][0]
    assert "keys-given" not in {mount["name"] for mount in main["volumeMounts"]}


def test_each_role_has_its_own_credentials_of_database_and_broker() -> None:
    for name in (*OURS, "migrate"):
        assert f"{name}-config" in secrets_of(name)
    for name in OURS:
        assert {one for one in secrets_of(name) if one.endswith("-config")} == {f"{name}-config"}
    users = {name: config.load(EXAMPLES / f"{name}.toml").database_url.split("@")[0] for name in (*OURS, "migrate")}
    assert len({users[name] for name in users if name != "worker-gpu"}) == len(users) - 1
    for name in ("api", "signer", "migrate"):
        assert config.load(EXAMPLES / f"{name}.toml").broker_url == "", f"{name} never speaks to the broker"


def test_the_signers_log_is_written_by_nobody_else() -> None:
    assert {name for name in WORKLOADS if claims_of(name).get("signer-home")} == {"signer"}
    assert {name for name in WORKLOADS if "signer-home" in claims_of(name)} == {"signer", "scheduler"}
    sealed = next(m for m in pod("scheduler")["containers"][0]["volumeMounts"] if m["name"] == "sealed")
    assert sealed["subPath"] == "sealed"
    assert claims_of("signer")["blobs"] is False, "the signer reads evidence and writes none"
    assert {name for name in WORKLOADS if "signer-socket" in claims_of(name)} == {"signer", "scheduler"}


def mounts(name: str) -> list[dict[str, Any]]:
    return [mount for one in containers(name) for mount in one.get("volumeMounts", [])]


def test_only_the_api_sees_what_tenants_are_sending() -> None:
    """The share holds blobs, part files of uploads, and what workers prove."""
    for name in WORKLOADS:
        volumes = {one["name"] for one in pod(name)["volumes"] if "persistentVolumeClaim" in one}
        seen = {mount.get("subPath", "") for mount in mounts(name) if mount["name"] == "blobs" and "blobs" in volumes}
        expected = {"api": {""}, "scheduler": {"blobs"}, "signer": {"blobs"}, "redis": set(), "migrate": set()}
        assert seen == expected.get(name, {"blobs", "isolation"}), name
    for name in ("scheduler", "signer", "worker-cpu", "worker-gpu"):
        server = config.load(EXAMPLES / f"{name}.toml")
        assert not any(server.uploads.is_relative_to(mount["mountPath"]) for mount in mounts(name))


@pytest.mark.parametrize("name", ROLES)
def test_every_pod_that_hangs_is_ended(name: str) -> None:
    main = pod(name)["containers"][0]
    assert "livenessProbe" in main
    if name in ("api", "redis"):
        return
    given = main["args"][main["args"].index("--alive") + 1]
    assert given in main["startupProbe"]["exec"]["command"]
    assert any(given in word for word in main["livenessProbe"]["exec"]["command"])
    assert any(given.startswith(mount["mountPath"]) for mount in mounts(name))
    cli._parser().parse_args(main["args"])


def test_api_that_cannot_serve_leaves_the_service_and_is_not_ended() -> None:
    main = pod("api")["containers"][0]
    _, port = parts(config.load(EXAMPLES / "api.toml").health_address)
    assert main["readinessProbe"]["grpc"] == {"port": port}
    for kind in ("startupProbe", "livenessProbe"):
        assert main[kind]["grpc"] == {"port": port, "service": LIVE}
    services = [one["spec"]["ports"] for one in OBJECTS if one["kind"] == "Service"]
    assert port not in {opened["port"] for ports in services for opened in ports}


@pytest.mark.parametrize("name", [*ROLES, "migrate"])
def test_every_container_asks_for_the_disk_that_its_folders_may_take(name: str) -> None:
    sizes = [one["emptyDir"] for one in pod(name)["volumes"] if "emptyDir" in one]
    owed = sum(_mebibytes(one["sizeLimit"]) for one in sizes if one.get("medium") != "Memory")
    main = pod(name)["containers"][0]["resources"]
    assert owed <= _mebibytes(main["requests"]["ephemeral-storage"]) <= _mebibytes(main["limits"]["ephemeral-storage"])


def _mebibytes(text: str) -> int:
    return int(text[:-2]) * {"Mi": 1, "Gi": 1024}[text[-2:]]


def test_passwords_of_the_broker_cross_the_network_under_tls() -> None:
    args = pod("redis")["containers"][0]["args"]
    assert args[args.index("--port") + 1] == "0"
    for name in ("scheduler", "worker-cpu", "worker-gpu"):
        url = urlsplit(config.load(EXAMPLES / f"{name}.toml").broker_url)
        asked = parse_qs(url.query)
        assert (url.scheme, asked["ssl_cert_reqs"], asked["ssl_check_hostname"]) == ("rediss", ["required"], ["true"])


def test_the_component_for_tokens_opens_one_port_all_the_way() -> None:
    component = yaml.safe_load((HERE / "tokens" / "kustomization.yaml").read_text())
    opened = {}
    for one in component["patches"]:
        (step,) = yaml.safe_load(one["patch"])
        (target,) = [o for o in OBJECTS if all(o["metadata"].get(k, o["kind"]) == v for k, v in one["target"].items())]
        where: Any = target
        for part in step["path"].strip("/").split("/")[:-1]:
            where = where[int(part) if part.isdigit() else part]
        assert isinstance(where, list), step["path"]
        opened[target["kind"]] = step["value"]
    assert opened["Deployment"] == {"name": "tokens", "containerPort": 7444}
    assert (opened["Service"]["port"], opened["Service"]["targetPort"]) == (7444, "tokens")
    assert opened["NetworkPolicy"]["port"] == 7444


def test_signer_and_scheduler_share_a_kernel_and_a_user() -> None:
    affinity = pod("scheduler")["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert affinity[0]["labelSelector"]["matchLabels"] == {"assay-part": "signer"}
    asked = config.load(EXAMPLES / "signer.toml").signer_uid
    assert pod("scheduler")["securityContext"]["runAsUser"] == asked
    assert pod("signer")["securityContext"]["runAsUser"] == asked, "the signer's files have mode 0600"
    assert WORKLOADS["signer"]["spec"]["strategy"]["type"] == "Recreate", "two signers would be two logs"


def test_the_signer_offers_and_looks_up_nothing() -> None:
    assert pod("signer")["dnsPolicy"] == "None"
    assert pod("signer")["dnsConfig"]["nameservers"] == ["127.0.0.1"]
    assert not any("ports" in one for one in containers("signer"))
    services = [one["spec"]["selector"] for one in OBJECTS if one["kind"] == "Service"]
    assert {"assay-part": "signer"} not in services
    host = config.load(EXAMPLES / "signer.toml").database_url.split("@")[1].split("/")[0]
    assert host.replace(".", "").isdigit(), "a name could not be looked up"


def _targets(rule: dict[str, Any]) -> Iterator[str]:
    for port in rule["ports"]:
        for peer in rule["to"]:
            labels = {
                **peer.get("namespaceSelector", {}).get("matchLabels", {}),
                **peer.get("podSelector", {}).get("matchLabels", {}),
            }
            if "ipBlock" in peer:
                who = "public"
                assert peer["ipBlock"]["cidr"] != "0.0.0.0/0" or "169.254.0.0/16" in peer["ipBlock"]["except"]
            elif labels.get("assay-room") == "database":
                who = "database"
            elif labels.get("kubernetes.io/metadata.name") == "kube-system":
                who = "dns"
            else:
                who = labels["assay-part"]
            yield f"{who}:{port['port']}"


def test_the_network_has_exactly_the_arrows_of_the_table() -> None:
    found = {}
    for policy in POLICIES:
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        if policy["metadata"]["name"] == "default-deny":
            assert policy["spec"]["podSelector"] == {}
            assert not {"ingress", "egress"} & set(policy["spec"])
            continue
        part = policy["spec"]["podSelector"]["matchLabels"]["assay-part"]
        found[part] = {arrow for rule in policy["spec"].get("egress", []) for arrow in _targets(rule)}
    assert found == ARROWS
    denied = {one["metadata"]["namespace"] for one in POLICIES if one["metadata"]["name"] == "default-deny"}
    assert denied == {"assay", "assay-workers"}


def test_nobody_comes_in_but_clients_and_those_who_knock() -> None:
    open_to = {
        policy["metadata"]["name"]: {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        for policy in POLICIES
        if policy["spec"].get("ingress")
    }
    assert open_to == {"api": {7443}, "redis": {6379}}
    redis = next(one for one in POLICIES if one["metadata"]["name"] == "redis")
    callers = {peer["podSelector"]["matchLabels"]["assay-part"] for peer in redis["spec"]["ingress"][0]["from"]}
    assert callers == {"scheduler", "worker"}


def test_a_worker_is_not_killed_while_it_drains() -> None:
    for name in ("worker-cpu", "worker-gpu"):
        drain_s = config.load(EXAMPLES / f"{name}.toml").drain_s
        assert pod(name)["terminationGracePeriodSeconds"] == drain_s + 60


def test_every_part_has_a_disruption_budget_that_lets_a_node_be_drained() -> None:
    for name in ROLES:
        labels = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
        (budget,) = [
            one["spec"]
            for one in OBJECTS
            if one["kind"] == "PodDisruptionBudget"
            and one["metadata"]["namespace"] == WORKLOADS[name]["metadata"]["namespace"]
            and one["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        replicas = WORKLOADS[name]["spec"]["replicas"]
        assert budget.get("maxUnavailable") == 1 or budget["minAvailable"] < replicas


@pytest.mark.parametrize("name", [*OURS, "migrate"])
def test_examples_are_read_by_this_release_and_name_mounted_folders(name: str) -> None:
    server = config.load(EXAMPLES / f"{name}.toml")
    mounts = {mount["mountPath"] for one in containers(name) for mount in one["volumeMounts"]}
    needed = {
        "api": (server.blobs, server.uploads, server.page_key, server.tls.key),
        "scheduler": (server.blobs, server.signer_socket, server.signer_home / "sealed"),
        "signer": (server.blobs, server.signer_socket, server.signer_home, server.signing_key),
        "migrate": (),
    }.get(name, (server.blobs, server.work, server.isolation_file))
    for path in needed:
        assert any(path.is_relative_to(mount) for mount in mounts), f"{name}: nothing is mounted at {path}"
    made = yaml.safe_load((EXAMPLES / "kustomization.yaml").read_text())["secretGenerator"]
    namespace = WORKLOADS[name]["metadata"]["namespace"]
    assert secrets_of(name) <= {one["name"] for one in made if one["namespace"] == namespace}


def test_workers_that_ask_for_a_gpu_have_a_queue_of_their_own() -> None:
    limits = pod("worker-gpu")["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in pod("worker-cpu")["containers"][0]["resources"]["limits"]
    assert WORKLOADS["worker-gpu"]["spec"]["replicas"] == 0, "a cluster without GPUs would wait for ever"
