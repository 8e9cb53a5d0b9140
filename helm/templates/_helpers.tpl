{{- define "trimtab.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of one component's pods; (list $ "gateway") */}}
{{- define "trimtab.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "trimtab.labels" -}}
{{- $root := index . 0 -}}
{{ include "trimtab.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* An image by its values; (list $ .Values.gateway.image) */}}
{{- define "trimtab.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end -}}

{{- define "trimtab.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (printf "%s-controller" (include "trimtab.fullname" .)) }}
{{- end -}}

{{- define "trimtab.sharedClaim" -}}
{{ .Values.sharedVolume.existingClaim | default (printf "%s-shared" (include "trimtab.fullname" .)) }}
{{- end -}}

{{/* Of every pod: no root, and no service links, whose TRIMTAB_… variables are nobody's settings. */}}
{{- define "trimtab.pod" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.runAsUser }}
  runAsGroup: {{ .Values.runAsUser }}
  fsGroup: {{ .Values.runAsUser }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a component's pods may run; its values */}}
{{- define "trimtab.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "trimtab.container" -}}
workingDir: /etc/trimtab
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "trimtab.storeEnv" -}}
- name: TRIMTAB_STATE_DIR
  value: /var/lib/trimtab
- name: TRIMTAB_STORE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.store.existingSecret }}
      key: {{ .Values.store.key }}
{{- end -}}

{{- define "trimtab.modelEnv" -}}
- name: HF_HOME
  value: /var/lib/trimtab/huggingface
{{- with .Values.huggingFace.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.huggingFace.key }}
{{- end }}
{{- end -}}

{{- define "trimtab.engineKeyEnv" -}}
{{- with .Values.engineKey.existingSecret }}
- name: TRIMTAB_ENGINE_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.engineKey.key }}
{{- end }}
{{- end -}}

{{- define "trimtab.blobsEnv" -}}
{{- with .Values.blobs.existingSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end -}}

{{- define "trimtab.mounts" -}}
- name: config
  mountPath: /etc/trimtab
  readOnly: true
- name: state
  mountPath: /var/lib/trimtab
- name: tmp
  mountPath: /tmp
{{- if .Values.goldenSets }}
- name: golden
  mountPath: /etc/trimtab-golden
  readOnly: true
{{- end }}
{{- if .Values.modelVolume.existingClaim }}
- name: model
  mountPath: {{ .Values.modelVolume.mountPath }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* The adapter store where it is a folder, and local copies of it where it is a bucket: engines read these paths. */}}
{{- define "trimtab.adapterMounts" -}}
- name: shared
  mountPath: /var/lib/trimtab/adapters
  subPath: adapters
- name: shared
  mountPath: /var/lib/trimtab/cache
  subPath: cache
{{- end -}}

{{/* The monitor writes drift reports, gateways show them. */}}
{{- define "trimtab.reportMount" -}}
- name: shared
  mountPath: /var/lib/trimtab/reports
  subPath: reports
{{- end -}}

{{/* (list $ "1Gi") with the state folder's size limit */}}
{{- define "trimtab.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap:
    name: {{ include "trimtab.fullname" $root }}
- name: state
  emptyDir:
    sizeLimit: {{ index . 1 }}
- name: tmp
  emptyDir: {}
{{- if $root.Values.goldenSets }}
- name: golden
  configMap:
    name: {{ include "trimtab.fullname" $root }}-golden
{{- end }}
{{- if $root.Values.modelVolume.existingClaim }}
- name: model
  persistentVolumeClaim:
    claimName: {{ $root.Values.modelVolume.existingClaim }}
    readOnly: true
{{- end }}
{{- end -}}

{{- define "trimtab.sharedVolume" -}}
- name: shared
  persistentVolumeClaim:
    claimName: {{ include "trimtab.sharedClaim" . }}
{{- end -}}

{{/* An engine takes minutes to start: only what it reads itself starts it anew, not its neighbours' settings. */}}
{{- define "trimtab.engineChecksum" -}}
{{- $engine := .Values.engine -}}
checksum/config: {{ list .Values.model .Values.settings.engine $engine.device $engine.extraArgs | toJson | sha256sum }}
{{- end -}}

{{- define "trimtab.configChecksum" -}}
checksum/config: {{ printf "%s%s" (include "trimtab.config" .) (include "trimtab.job" .) | sha256sum }}
{{- end -}}
