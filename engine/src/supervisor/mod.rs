//! Processes under supervision: launching, namespaces, syscalls.
