{{- define "hilum.labels" -}}
app.kubernetes.io/name: hilum
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "hilum.selector" -}}
app.kubernetes.io/name: hilum
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "hilum.image" -}}
{{- if not (and .Values.image.repository .Values.image.digest) }}
{{- fail "image.repository and image.digest: name the image by its digest, never by a tag" }}
{{- end }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- end }}

{{/* preStop, draining, the longest request, and something to spare. */}}
{{- define "hilum.grace" -}}
{{- with .Values.stopping }}{{ add .preStop .drain .request .spare }}{{ end }}
{{- end }}

{{- define "hilum.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "hilum.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The volume of models, for a type of GPU. */}}
{{- define "hilum.models" -}}
{{- if eq .root.Values.models.from "image" }}
{{- if semverCompare "<1.33.0-0" .root.Capabilities.KubeVersion.Version }}
{{- fail "models.from image: image volumes need Kubernetes 1.33 with its gate on, or 1.35" }}
{{- end }}
image:
  reference: {{ required "models.image: name it by its digest" .root.Values.models.image }}
  pullPolicy: IfNotPresent
{{- else }}
persistentVolumeClaim:
  claimName: {{ .gpu.claim | default .root.Values.models.claim }}
  readOnly: {{ .readOnly }}
{{- end }}
{{- end }}

{{/* Refuses what contradicts itself. */}}
{{- define "hilum.check" -}}
{{- $v := .Values }}
{{- if and (eq (int $v.rollout.maxSurge) 0) (eq (int $v.rollout.maxUnavailable) 0) }}
{{- fail "rollout: maxSurge and maxUnavailable cannot both be 0" }}
{{- end }}
{{- if gt (add (mul 11 $v.connectionAge) 50) (mul 10 (add $v.stopping.preStop $v.stopping.drain)) }}
{{- fail "connectionAge: clients would still ask a server that stops; 1.1 of it and 5 s fit into stopping.preStop + stopping.drain" }}
{{- end }}
{{- if gt (int $v.scaling.min) (int $v.scaling.max) }}
{{- fail "scaling: min is above max" }}
{{- end }}
{{- if and (ne $v.scaling.by "none") (not $v.monitoring.enabled) }}
{{- fail "scaling needs monitoring.enabled, whose rule makes the metric" }}
{{- end }}
{{- if and $v.engines.build (eq $v.models.from "image") }}
{{- fail "engines.build writes into claims: models.from is claim" }}
{{- end }}
{{- if and $v.dra.enabled (semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail "dra needs Kubernetes 1.34" }}
{{- end }}
{{- $claims := list }}
{{- range $v.gpus }}
{{- if $v.engines.build }}
{{- if not .claim }}{{ fail (printf "gpus: %s needs a claim of its own for its engines" .name) }}{{ end }}
{{- if has .claim $claims }}{{ fail (printf "gpus: %s shares its claim; engines fit one type of GPU" .name) }}{{ end }}
{{- $claims = append $claims .claim }}
{{- end }}
{{- end }}
{{- end }}

{{- define "hilum.servers" -}}
{{ .Release.Name }}-hilum.{{ .Release.Namespace }}.svc:8001
{{- end }}

{{- define "hilum.storageClaim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .root.Release.Name }}-hilum-{{ .part }}
  labels: {{- include "hilum.labels" .root | nindent 4 }}
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .root.Values.storage.class }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .root.Values.storage.size }}}}
{{- end }}
