# With channel = "redis": a VPC without a way to the internet, and one cache node in it.

data "aws_availability_zones" "this" {
  count = local.redis ? 1 : 0
  state = "available"

  filter {
    name   = "zone-type"
    values = ["availability-zone"]
  }
}

resource "aws_vpc" "this" {
  count      = local.redis ? 1 : 0
  cidr_block = "10.83.0.0/16"

  tags = {
    Name = "${var.name}-cache"
  }
}

# One zone: what functions and the cache send each other across zones would be billed.
resource "aws_subnet" "this" {
  count                = local.redis ? 1 : 0
  vpc_id               = aws_vpc.this[0].id
  cidr_block           = cidrsubnet(aws_vpc.this[0].cidr_block, 4, 0)
  availability_zone_id = sort(data.aws_availability_zones.this[0].zone_ids)[0]

  tags = {
    Name = "${var.name}-cache"
  }
}

resource "aws_vpc_endpoint" "s3" {
  count             = local.redis ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.s3"
  route_table_ids   = [aws_vpc.this[0].main_route_table_id]
  policy            = templatefile("${path.module}/policies/endpoint.json", local.parameters)

  tags = {
    Name = "${var.name}-cache"
  }
}

resource "aws_security_group" "this" {
  count       = local.redis ? 1 : 0
  name        = "${var.name}-cache"
  description = "Workers and cache of Siren"
  vpc_id      = aws_vpc.this[0].id

  ingress {
    description = "Redis, from the group itself"
    protocol    = "tcp"
    from_port   = 6379
    to_port     = 6379
    self        = true
  }

  egress {
    description = "All that the VPC has a route to: itself and S3"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }

  tags = {
    Name = "${var.name}-cache"
  }
}

resource "aws_elasticache_subnet_group" "this" {
  count       = local.redis ? 1 : 0
  name        = "${var.name}-cache"
  description = "Siren"
  subnet_ids  = aws_subnet.this[*].id
}

# A full node refuses writes; by default it would drop models, whose keys expire.
resource "aws_elasticache_parameter_group" "this" {
  count       = local.redis ? 1 : 0
  name        = "${var.name}-cache"
  description = "Siren"
  family      = "redis7"

  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_cluster" "this" {
  count                    = local.redis ? 1 : 0
  cluster_id               = "${var.name}-cache"
  engine                   = "redis"
  engine_version           = "7.1"
  node_type                = var.cache_node
  num_cache_nodes          = 1
  port                     = 6379
  parameter_group_name     = aws_elasticache_parameter_group.this[0].name
  subnet_group_name        = aws_elasticache_subnet_group.this[0].name
  security_group_ids       = aws_security_group.this[*].id
  snapshot_retention_limit = 0
}
