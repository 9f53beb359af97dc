"""HTTP routes of this package, added to vLLM's server when `VLLM_PLUGINS` names `mdlm`."""
