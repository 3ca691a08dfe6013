{{/* A TOML table: settings first, then sections. JSON's texts, numbers and truth values are TOML's too. */}}
{{- define "anabranch.toml" -}}
{{- $section := .section -}}
{{- $table := .table -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "anabranch.tomlKey" $key }} = {{ toJson $value }}
{{- end -}}
{{- end -}}
{{- range $key := keys $table | sortAlpha -}}
{{- $value := get $table $key -}}
{{- if kindIs "map" $value -}}
{{- $name := include "anabranch.tomlKey" $key -}}
{{- if $section -}}{{- $name = printf "%s.%s" $section $name -}}{{- end }}

[{{ $name }}]
{{- include "anabranch.toml" (dict "section" $name "table" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "anabranch.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{- . -}}{{- else -}}{{- toJson . -}}{{- end -}}
{{- end -}}

{{/* anabranch.toml: the values below `config`, and what the chart decides: addresses and the files of certificates. */}}
{{- define "anabranch.configuration" -}}
{{- include "anabranch.check" . -}}
{{- $worker := dict "http" ":8081" -}}
{{- if and .Values.worker.staticMembership (not (dig "worker" "session_timeout_ms" 0 .Values.config)) -}}
{{- $_ := set $worker "session_timeout_ms" 45000 -}}
{{- end -}}
{{- $own := dict "worker" $worker "trainer" (dict "http" ":8082") "serve" (dict "http" ":8080") -}}
{{- $tls := .Values.kafkaTls -}}
{{- if $tls.existingSecret -}}
{{- $files := dict -}}
{{- range $setting, $key := dict "ca_file" $tls.ca "cert_file" $tls.cert "key_file" $tls.key -}}
{{- if $key -}}{{- $_ := set $files $setting (printf "/etc/anabranch-tls/%s" $key) -}}{{- end -}}
{{- end -}}
{{- $_ := set $own "kafka" $files -}}
{{- end -}}
{{- $all := mustMergeOverwrite (deepCopy .Values.config) $own -}}
# Written by the chart, from the values below `config`. docs/configuration.md explains every setting.
{{- include "anabranch.toml" (dict "section" "" "table" $all) }}
{{ end -}}

{{/* Names of the secrets: the value, the variable of its setting, and the key in a Secret that the chart creates. */}}
{{- define "anabranch.secrets" -}}
saslPassword: {variable: ANABRANCH_KAFKA__SASL_PASSWORD, key: sasl-password}
signingKey: {variable: ANABRANCH_KAFKA__SIGNING_KEY, key: signing-key}
readToken: {variable: ANABRANCH_SERVE__READ_TOKEN, key: read-token}
writeToken: {variable: ANABRANCH_SERVE__WRITE_TOKEN, key: write-token}
operateToken: {variable: ANABRANCH_SERVE__OPERATE_TOKEN, key: operate-token}
{{- end -}}

{{/* The data of the Secret that the chart creates; empty where every secret exists already. */}}
{{- define "anabranch.secretData" -}}
{{- range $name, $known := include "anabranch.secrets" . | fromYaml -}}
{{- with (get $.Values.secrets $name).value }}
{{ $known.key }}: {{ . | b64enc | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the values contradict. Each message names the value, and what to set. */}}
{{- define "anabranch.check" -}}
{{- $config := .Values.config -}}
{{- $sections := dict -}}
{{- range $name := list "kafka" "worker" "trainer" "serve" "topics" -}}
{{- $_ := set $sections $name (default dict (get $config $name)) -}}
{{- end -}}
{{- if not $config.broker -}}
{{- fail "config.broker is empty: name your Kafka, for example --set config.broker=kafka.kafka.svc:9092" -}}
{{- end -}}
{{- range $name, $known := include "anabranch.secrets" . | fromYaml -}}
{{- $setting := $known.variable | trimPrefix "ANABRANCH_" | lower | splitList "__" -}}
{{- if get (get $sections (index $setting 0)) (index $setting 1) -}}
{{- fail (printf "config.%s would be readable in a ConfigMap: set secrets.%s.existingSecret to the name of a Secret instead" (join "." $setting) $name) -}}
{{- end -}}
{{- $secret := get $.Values.secrets $name -}}
{{- if and $secret.value $secret.existingSecret -}}
{{- fail (printf "secrets.%s has a value and an existingSecret: set one of them" $name) -}}
{{- end -}}
{{- end -}}
{{- if $config.data -}}
{{- fail "config.data is the chart's: the state is on the volume of worker.persistence" -}}
{{- end -}}
{{- range list "worker.http" "worker.instance" "worker.group_instance_id" "trainer.http" "serve.http" "serve.instance" -}}
{{- $part := splitList "." . -}}
{{- if hasKey (get $sections (index $part 0)) (index $part 1) -}}
{{- fail (printf "config.%s is the chart's: ports are fixed, and the name of a pod is the name of its process" .) -}}
{{- end -}}
{{- end -}}
{{- range list "ca_file" "cert_file" "key_file" -}}
{{- if get $sections.kafka . -}}
{{- fail (printf "config.kafka.%s is the chart's: put the file in a Secret and name it in kafkaTls.existingSecret" .) -}}
{{- end -}}
{{- end -}}
{{- $security := default "plaintext" $sections.kafka.security -}}
{{- $password := or .Values.secrets.saslPassword.value .Values.secrets.saslPassword.existingSecret -}}
{{- if hasPrefix "sasl_" $security -}}
{{- if not (and $sections.kafka.sasl_user $password) -}}
{{- fail (printf "config.kafka.security is %s: set config.kafka.sasl_user, and secrets.saslPassword.existingSecret to the name of a Secret with the password" $security) -}}
{{- end -}}
{{- else if $password -}}
{{- fail (printf "secrets.saslPassword is set, but config.kafka.security is %s and sends no user: set it to sasl_ssl" $security) -}}
{{- end -}}
{{- if and .Values.kafkaTls.existingSecret (not (has $security (list "ssl" "sasl_ssl"))) -}}
{{- fail (printf "kafkaTls.existingSecret is set, but config.kafka.security is %s and not encrypted: set it to ssl or sasl_ssl" $security) -}}
{{- end -}}
{{- $most := int .Values.worker.replicas -}}
{{- $named := "worker.replicas" -}}
{{- if .Values.worker.autoscaling.enabled -}}
{{- $most = int .Values.worker.autoscaling.maxReplicas -}}
{{- $named = "worker.autoscaling.maxReplicas" -}}
{{- if lt $most (int .Values.worker.replicas) -}}
{{- fail (printf "worker.autoscaling.maxReplicas is %d, and worker.replicas, the smallest number, is %d" $most (int .Values.worker.replicas)) -}}
{{- end -}}
{{- end -}}
{{- $partitions := int (default 2 $sections.topics.partitions) -}}
{{- if gt $most $partitions -}}
{{- fail (printf "%s is %d, but the clicks topic has %d partitions, and a worker without a partition does nothing: set config.topics.partitions to what the topic has, or will be created with. It cannot be changed later" $named $most $partitions) -}}
{{- end -}}
{{- if and (gt $most 1) (not $config.artifacts) -}}
{{- fail (printf "%s is %d, but config.artifacts is empty: workers fetch versions and the checkpoints of partitions that move from a store that all of them reach, for example s3://BUCKET/anabranch" $named $most) -}}
{{- end -}}
{{- $scaled := .Values.serve.autoscaling -}}
{{- if and $scaled.enabled (lt (int $scaled.maxReplicas) (int .Values.serve.replicas)) -}}
{{- fail (printf "serve.autoscaling.maxReplicas is %d, and serve.replicas, the smallest number, is %d" (int $scaled.maxReplicas) (int .Values.serve.replicas)) -}}
{{- end -}}
{{- if and .Values.serve.ingress.enabled (not .Values.serve.enabled) -}}
{{- fail "serve.ingress.enabled needs serve.enabled" -}}
{{- end -}}
{{- if and .Values.serve.ingress.enabled (not .Values.serve.ingress.hosts) -}}
{{- fail "serve.ingress.hosts is empty: name the host, for example --set 'serve.ingress.hosts={recommendations.example.com}'" -}}
{{- end -}}
{{- end -}}
