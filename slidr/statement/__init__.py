"""What an advertiser is told of a month: gross, general and sophisticated invalid traffic, net, and corrections by original month."""
