{{- define "anabranch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: the names of pods, and of Kubernetes' own revisions of them, are longer and have 63. */}}
{{- define "anabranch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "anabranch.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels by which selectors find all pods of this release. They never change. */}}
{{- define "anabranch.selector" -}}
app.kubernetes.io/name: {{ include "anabranch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "anabranch.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{ include "anabranch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: anabranch
{{- end -}}

{{- define "anabranch.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "anabranch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "anabranch.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The consumer group and the topic of clicks, named as stream/load_config.py names them. */}}
{{- define "anabranch.group" -}}
{{- $prefix := dig "topics" "prefix" "" .Values.config -}}
{{- default (printf "%sanabranch" $prefix) .Values.config.group -}}
{{- end -}}

{{- define "anabranch.clicks" -}}
{{- $topics := default dict .Values.config.topics -}}
{{- default (printf "%sclicks" (default "" $topics.prefix)) $topics.clicks -}}
{{- end -}}
