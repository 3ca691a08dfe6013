{{/* What all pods have in common. The fields satisfy Kubernetes' restricted pod security. */}}
{{- define "anabranch.podSecurity" -}}
automountServiceAccountToken: false
# A Service of the same name would otherwise become variables ANABRANCH_..., which are refused as unknown settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  # The volume becomes writable for the process. OnRootMismatch: a large one is not walked at every start.
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "anabranch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "anabranch.podMetadata" -}}
{{- $root := .root -}}
labels:
  {{- with $root.Values.pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "anabranch.labels" $root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .consumer }}
  anabranch/consumer: {{ . | quote }}
  {{- end }}
annotations:
  # A change of the configuration, or of a secret in the values, restarts the pods. One of an existing Secret does not.
  anabranch/configuration: {{ printf "%s%s" (include "anabranch.configuration" $root) (include "anabranch.secretData" $root) | sha256sum }}
  {{- with $root.Values.pod.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Where pods go: those of the values, and apart from each other. Takes root, pod (its values) and selector. */}}
{{- define "anabranch.placement" -}}
topologySpreadConstraints:
  # A node or zone that is lost takes as few of them as possible. They start all the same where there is only one.
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $.selector | nindent 8 }}
  {{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The variables of a container, by name, so that extraEnv replaces and never repeats one. Takes root, secrets (those
it needs), pod (its values) and env (a map of its own variables). */}}
{{- define "anabranch.env" -}}
{{- $root := .root -}}
{{- $known := include "anabranch.secrets" $root | fromYaml -}}
{{- $created := printf "%s-secrets" (include "anabranch.fullname" $root) -}}
{{- if .hook -}}{{- $created = printf "%s-init" (include "anabranch.fullname" $root) -}}{{- end -}}
{{- $env := dict
  "ANABRANCH_CONFIG" (dict "value" "/etc/anabranch/anabranch.toml")
  "ANABRANCH_DATA" (dict "value" "/data/anabranch")
-}}
{{- range $name := .secrets -}}
{{- $secret := get $root.Values.secrets $name -}}
{{- $setting := get $known $name -}}
{{- if $secret.existingSecret -}}
{{- $key := default $setting.key $secret.key -}}
{{- $_ := set $env $setting.variable (dict "valueFrom" (dict "secretKeyRef" (dict "name" $secret.existingSecret "key" $key))) -}}
{{- else if $secret.value -}}
{{- $_ := set $env $setting.variable (dict "valueFrom" (dict "secretKeyRef" (dict "name" $created "key" $setting.key))) -}}
{{- end -}}
{{- end -}}
{{- range $name, $entry := default dict .env -}}
{{- $_ := set $env $name $entry -}}
{{- end -}}
{{- range .pod.extraEnv -}}
{{- $_ := set $env .name (omit . "name") -}}
{{- end -}}
{{- range $name := keys $env | sortAlpha }}
- name: {{ $name }}
  {{- toYaml (get $env $name) | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* One container. Takes root, role (worker, trainer, serve), secrets, pod and env. */}}
{{- define "anabranch.container" -}}
{{- $root := .root -}}
name: {{ .role }}
image: {{ include "anabranch.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [{{ .role }}]
env:
  {{- include "anabranch.env" . | trim | nindent 2 }}
{{- with .pod.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: {{ .role }}
    containerPort: {{ .port }}
# It has 10 minutes to load its version and to open its files. Waiting for a broker does not count.
startupProbe:
  httpGet: {path: /startupz, port: {{ .role }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
# Only a loop that does not turn for a minute is ended. A broker that is away is no reason.
livenessProbe:
  httpGet: {path: /livez, port: {{ .role }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .role }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
resources:
  {{- toYaml .pod.resources | nindent 2 }}
securityContext:
  {{- include "anabranch.containerSecurity" $root | nindent 2 }}
volumeMounts:
  {{- include "anabranch.mounts" (dict "root" $root "role" .role) | nindent 2 }}
{{- end -}}

{{/* Takes root and role. */}}
{{- define "anabranch.mounts" -}}
{{- $root := .root -}}
- name: data
  mountPath: /data
- name: tmp-{{ .role }}
  mountPath: /tmp
- name: config
  mountPath: /etc/anabranch
  readOnly: true
{{- if $root.Values.kafkaTls.existingSecret }}
- name: kafka-tls
  mountPath: /etc/anabranch-tls
  readOnly: true
{{- end }}
{{- with $root.Values.pod.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes beside `data`. Takes root, roles (the containers) and config (the name of the ConfigMap). */}}
{{- define "anabranch.volumes" -}}
# One for each container: folders in /tmp have names with process ids, and each container counts its own.
{{- range .roles }}
- name: tmp-{{ . }}
  emptyDir:
    sizeLimit: 1Gi
{{- end }}
- name: config
  configMap:
    name: {{ .config }}
{{- with .root.Values.kafkaTls.existingSecret }}
- name: kafka-tls
  secret:
    secretName: {{ . }}
    # Read by the group of the pod, 10001, and by nobody else.
    defaultMode: 0440
{{- end }}
{{- with .root.Values.pod.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
