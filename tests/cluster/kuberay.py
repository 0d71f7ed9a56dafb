"""KubeRay's RayService, version v1, as strict models: a field that it does not know is refused.

Field by field as KubeRay's API reference (1.5) names them; what is plain Kubernetes in it, pods and
variables, is left as it is, to be checked against Kubernetes' own schemas.
"""

# ruff: noqa: N815  # the names are KubeRay's

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mapping = dict[str, Any]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    idleTimeoutSeconds: int | None = Field(default=None, ge=0)
    image: str | None = None
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"] | None = None
    resources: Mapping | None = None
    securityContext: Mapping | None = None
    env: list[Mapping] | None = None
    envFrom: list[Mapping] | None = None
    volumeMounts: list[Mapping] | None = None


class AuthOptions(Strict):
    mode: Literal["disabled", "token"]


class Credential(Strict):
    value: str | None = None
    valueFrom: Mapping | None = None


class GcsFaultToleranceOptions(Strict):
    redisAddress: str
    redisUsername: Credential | None = None
    redisPassword: Credential | None = None
    externalStorageNamespace: str | None = None


class HeadGroup(Strict):
    rayStartParams: dict[str, str]
    template: Mapping
    headService: Mapping | None = None
    enableIngress: bool | None = None
    serviceType: str | None = None
    resources: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class WorkerGroup(Strict):
    groupName: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    replicas: int = Field(ge=0)
    minReplicas: int = Field(ge=0)
    maxReplicas: int = Field(ge=0)
    numOfHosts: int | None = Field(default=None, ge=1)
    idleTimeoutSeconds: int | None = Field(default=None, ge=0)
    suspend: bool | None = None
    scaleStrategy: Mapping | None = None
    rayStartParams: dict[str, str]
    resources: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    template: Mapping


class RayCluster(Strict):
    rayVersion: str
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    authOptions: AuthOptions
    gcsFaultToleranceOptions: GcsFaultToleranceOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]
    headServiceAnnotations: dict[str, str] | None = None
    managedBy: str | None = None
    suspend: bool | None = None


class UpgradeStrategy(Strict):
    type: Literal["NewCluster", "None", "NewClusterWithIncrementalUpgrade"]
    clusterUpgradeOptions: Mapping | None = None


class RayServiceSpec(Strict):
    serveConfigV2: str
    rayClusterConfig: RayCluster
    upgradeStrategy: UpgradeStrategy | None = None
    serveService: Mapping | None = None
    excludeHeadPodFromServeSvc: bool | None = None
    rayClusterDeletionDelaySeconds: int | None = Field(default=None, ge=0)


class RayService(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Mapping
    spec: RayServiceSpec
