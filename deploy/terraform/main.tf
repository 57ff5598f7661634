# What `python -m siren.deploy` makes, as Terraform. The policies are the same documents: files in policies/.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  bucket = "${var.name}-${data.aws_caller_identity.this.account_id}-${var.region}"
  redis  = var.channel == "redis"
  parameters = {
    name      = var.name
    region    = var.region
    account   = data.aws_caller_identity.this.account_id
    partition = data.aws_partition.this.partition
  }
  redis_url = local.redis ? "redis://${aws_elasticache_cluster.this[0].cache_nodes[0].address}:6379" : null
}

resource "aws_s3_bucket" "this" {
  bucket        = local.bucket
  force_destroy = true

  tags = {
    "siren:channel" = var.channel
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket     = aws_s3_bucket.this.id
  policy     = templatefile("${path.module}/policies/bucket.json", local.parameters)
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "runs"
    status = "Enabled"

    filter {
      prefix = "runs/"
    }

    expiration {
      days = var.run_days
    }
  }

  rule {
    id     = "uploads"
    status = "Enabled"

    filter {
      prefix = ""
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${var.name}-worker"
  retention_in_days = var.log_days
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-worker-${var.region}"
  description        = "Workers of Siren"
  assume_role_policy = templatefile("${path.module}/policies/trust.json", local.parameters)
}

resource "aws_iam_role_policy" "worker" {
  name   = "siren-worker"
  role   = aws_iam_role.worker.id
  policy = templatefile("${path.module}/policies/${local.redis ? "worker-vpc" : "worker"}.json", local.parameters)
}

resource "aws_lambda_function" "worker" {
  function_name                  = "${var.name}-worker"
  description                    = "Worker of Siren"
  role                           = aws_iam_role.worker.arn
  runtime                        = "python3.13"
  handler                        = "siren.worker.handler.handler"
  architectures                  = [var.architecture]
  filename                       = var.package
  source_code_hash               = filebase64sha256(var.package)
  reserved_concurrent_executions = var.concurrency

  environment {
    variables = merge(
      {
        OMP_NUM_THREADS      = "1"
        OPENBLAS_NUM_THREADS = "1"
      },
      local.redis ? { SIREN_REDIS_URL = local.redis_url } : {},
    )
  }

  dynamic "vpc_config" {
    for_each = local.redis ? [1] : []

    content {
      subnet_ids         = aws_subnet.this[*].id
      security_group_ids = aws_security_group.this[*].id
    }
  }

  # A run finds everything by these tags.
  tags = merge(
    { "siren:bucket" = local.bucket },
    local.redis ? { "siren:redis" = local.redis_url } : {},
  )

  depends_on = [aws_cloudwatch_log_group.this, aws_iam_role_policy.worker]

  # siren.run publishes a version for each memory and timeout that it uses.
  lifecycle {
    ignore_changes = [memory_size, timeout]
  }
}
