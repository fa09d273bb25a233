# Declares what `sizewright export JOB.yaml --to terraform > sizewright.auto.tfvars.json` writes.

variable "name" {
  description = "The workload's name, as a resource may be called."
  type        = string
}

variable "cloud" {
  description = "Who rents the machines, such as aws."
  type        = string
}

variable "region" {
  description = "The region of the price."
  type        = string
}

variable "zones" {
  description = "Zones of the region that offer the type; empty where nobody says."
  type        = list(string)
}

variable "instance_type" {
  description = "The provider's own name of the machine."
  type        = string
}

variable "instance_count" {
  description = "Nodes of the plan."
  type        = number
}

variable "spot" {
  description = "Whether the price is of capacity that can be taken away."
  type        = bool
}

variable "gpus_per_node" {
  description = "GPUs of a node; 0 for a job of the host alone."
  type        = number
}

variable "cost_per_hour_usd" {
  description = "Dollars an hour of all nodes, as decimal text."
  type        = string
}

variable "guest_accelerator_type" {
  description = "GPUs that Google Cloud attaches to the machine; null where it has its own."
  type        = string
  default     = null
}

variable "guest_accelerator_count" {
  description = "How many of them."
  type        = number
  default     = 0
}
