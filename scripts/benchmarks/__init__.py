"""What `make bench` measures, and how: clients, servers to compare with, workloads and tables."""
