"""Networks: plain, ACT and SACT, of the ImageNet and the CIFAR family."""
