{{- define "portcullis.selector" -}}
app.kubernetes.io/name: portcullis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Seconds of a duration of the configuration, rounded up. */}}
{{- define "portcullis.seconds" -}}
{{- if hasSuffix "ms" . -}}
{{ div (add (trimSuffix "ms" . | int) 999) 1000 }}
{{- else if hasSuffix "s" . -}}
{{ trimSuffix "s" . | int }}
{{- else if hasSuffix "m" . -}}
{{ mul (trimSuffix "m" . | int) 60 }}
{{- else -}}
{{ fail (printf "shutdown: %s is not in milliseconds, seconds or minutes" .) }}
{{- end }}
{{- end }}

{{- /* Longer than the gateway takes for its drain. */}}
{{- define "portcullis.terminationGracePeriodSeconds" -}}
{{- $config := fromYaml .Values.config }}
{{- if hasKey $config "Error" }}{{ fail (printf "config: %s" $config.Error) }}{{ end }}
{{- $shutdown := $config.shutdown | default dict }}
{{- $delay := include "portcullis.seconds" ($shutdown.delay | default "0s") | int }}
{{- $grace := include "portcullis.seconds" ($shutdown.grace | default "25s") | int }}
{{- add $delay $grace 10 }}
{{- end }}
