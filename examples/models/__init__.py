"""Well-known models with the parameter names and shapes that they have in PyTorch, so that trained weights load.

    model = resnet18()
    model.load_state_dict(graphc.load("resnet18.pth"))      # a state dict saved by PyTorch, or a safetensors file

Names of parameters are those of torchvision for the image models, of nanoGPT for `GPT`, and of PyTorch's example of word
language models for `CharLSTM`.
"""

from models.gpt import GPT, GPTConfig
from models.lstm import CharLSTM
from models.mobilenet import MobileNetV2, mobilenet_v2
from models.resnet import ResNet, resnet18, resnet34, resnet50
from models.vgg import VGG, vgg16

__all__ = [
    "GPT", "VGG", "CharLSTM", "GPTConfig", "MobileNetV2", "ResNet", "mobilenet_v2", "resnet18", "resnet34", "resnet50",
    "vgg16",
]
