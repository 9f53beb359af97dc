"""Tests of vllm_mdlm."""
