<#
.SYNOPSIS
Tries trtcross on a Windows machine with an NVIDIA RTX GPU, in about ten minutes and 6 GB.

.DESCRIPTION
The folder must hold the wheel of trtcross and artifacts for Windows, as `make demo wheel` makes them on Linux (dist\*.whl
and .demo\*.pt2), with this file and windows_gpu.py beside them. The script makes a virtual environment there, installs what
the artifacts name, and runs check, verify and bench with PyTorch, with TensorRT-RTX alone (Session), and with ONNX Runtime.
Nothing is installed outside the folder. The results are in windows-gpu.json: please send that file.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File windows-gpu.ps1 -Folder C:\trtcross
#>
param(
    [string] $Folder = $PSScriptRoot,
    [string] $Out = (Join-Path $Folder 'windows-gpu.json'),
    [string] $Python = '3.12'
)
$ErrorActionPreference = 'Stop'

if (-not (Get-Command py -ErrorAction SilentlyContinue)) {
    throw "the Python launcher (py) is missing: install Python $Python from https://www.python.org/downloads/windows/"
}
if (-not (Get-ChildItem -Path $Folder -Filter '*.pt2')) {
    throw "there are no artifacts (*.pt2) in $Folder"
}
if (-not (Get-ChildItem -Path $Folder -Filter 'trtcross-*.whl')) {
    throw "there is no wheel (trtcross-*.whl) in $Folder"
}

$venv = Join-Path $Folder 'venv'
if (-not (Test-Path -Path $venv)) {
    & py "-$Python" -m venv $venv
    if ($LASTEXITCODE -ne 0) { throw "py -$Python -m venv failed: is Python $Python installed?" }
}
& (Join-Path $venv 'Scripts\python.exe') (Join-Path $PSScriptRoot 'windows_gpu.py') $Folder $Out
if (Test-Path -Path $Out) { Write-Host "written: $Out" }
exit $LASTEXITCODE
