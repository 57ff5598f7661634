variable "region" {
  description = "AWS region; that of the world that runs are priced with. There is no default on purpose."
  type        = string
}

variable "name" {
  description = "Name of the deployment, as siren.run --deployment takes it."
  type        = string
  default     = "siren"

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.name)) && length(var.name) <= 24
    error_message = "Use at most 24 small letters, digits and single hyphens, and start with a letter."
  }
}

variable "package" {
  description = "Code package, written by: python -m siren.deploy --save-package FILE --region REGION"
  type        = string
}

variable "architecture" {
  description = "x86_64 or arm64, as the package was built for."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "Use x86_64 or arm64."
  }
}

variable "channel" {
  description = "s3, or redis: a VPC and a cache node, billed by the started hour until it is destroyed."
  type        = string
  default     = "s3"

  validation {
    condition     = contains(["s3", "redis"], var.channel)
    error_message = "Use s3 or redis."
  }
}

variable "cache_node" {
  description = "Node type of the cache: channels.redis.node of the world."
  type        = string
  default     = "cache.t4g.small"
}

variable "concurrency" {
  description = "Functions that may ever run at once. 100 must stay unreserved in the account."
  type        = number
  default     = 100

  validation {
    condition     = var.concurrency >= 1
    error_message = "Reserve at least 1."
  }
}

variable "log_days" {
  description = "Days that the log is kept."
  type        = number
  default     = 14
}

variable "run_days" {
  description = "Days that objects of a run are kept."
  type        = number
  default     = 30
}
