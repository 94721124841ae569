"""Programs in an interpreter that is WebAssembly: no call of the kernel."""
