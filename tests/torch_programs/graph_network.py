"""A graph convolutional network on a graph with two communities, with sparse-like adjacency by scatter."""
import argparse
import math
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.nn.modules.module import Module
from torch.nn.parameter import Parameter

parser = argparse.ArgumentParser()
parser.add_argument('--no-cuda', action='store_true', default=False)
parser.add_argument('--seed', type=int, default=42)
parser.add_argument('--epochs', type=int, default=60)
parser.add_argument('--lr', type=float, default=0.01)
parser.add_argument('--weight_decay', type=float, default=5e-4)
parser.add_argument('--hidden', type=int, default=16)
parser.add_argument('--dropout', type=float, default=0.5)
args = parser.parse_args()
args.cuda = not args.no_cuda and torch.cuda.is_available()
random.seed(args.seed)
np.random.seed(args.seed)
torch.manual_seed(args.seed)
if args.cuda:
    torch.cuda.manual_seed(args.seed)


class GraphConvolution(Module):
    def __init__(self, in_features, out_features, bias=True):
        super(GraphConvolution, self).__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(torch.FloatTensor(in_features, out_features))
        if bias:
            self.bias = Parameter(torch.FloatTensor(out_features))
        else:
            self.register_parameter('bias', None)
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1. / math.sqrt(self.weight.size(1))
        self.weight.data.uniform_(-stdv, stdv)
        if self.bias is not None:
            self.bias.data.uniform_(-stdv, stdv)

    def forward(self, input, edges, weights):
        support = torch.mm(input, self.weight)
        source, target = edges
        messages = support[source] * weights.unsqueeze(1)
        output = torch.zeros_like(support).index_add(0, target, messages)
        return output + self.bias if self.bias is not None else output

    def __repr__(self):
        return self.__class__.__name__ + ' (' + str(self.in_features) + ' -> ' + str(self.out_features) + ')'


class GCN(nn.Module):
    def __init__(self, nfeat, nhid, nclass, dropout):
        super(GCN, self).__init__()
        self.gc1 = GraphConvolution(nfeat, nhid)
        self.gc2 = GraphConvolution(nhid, nclass)
        self.dropout = dropout

    def forward(self, x, edges, weights):
        x = F.relu(self.gc1(x, edges, weights))
        x = F.dropout(x, self.dropout, training=self.training)
        x = self.gc2(x, edges, weights)
        return F.log_softmax(x, dim=1)


def community_graph(nodes=60):
    labels = torch.arange(nodes) % 2
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    chance = torch.where(same, torch.tensor(0.25), torch.tensor(0.02))
    adjacency = torch.triu(torch.rand(nodes, nodes) < chance, diagonal=1)
    adjacency = (adjacency | adjacency.t()) | torch.eye(nodes, dtype=torch.bool)
    edges = adjacency.nonzero().t()
    degree = torch.bincount(edges[1], minlength=nodes).float()
    weights = (degree[edges[0]] * degree[edges[1]]).rsqrt()
    features = torch.randn(nodes, 8) + 0.5 * labels.unsqueeze(1).float()
    return features, edges, weights, labels


def accuracy(output, labels):
    preds = output.max(1)[1].type_as(labels)
    correct = preds.eq(labels).double()
    correct = correct.sum()
    return correct / len(labels)


features, edges, weights, labels = community_graph()
order = torch.LongTensor(np.random.permutation(len(labels)))
idx_train, idx_test = order[:20], order[20:]
model = GCN(features.shape[1], args.hidden, labels.max().item() + 1, args.dropout)
print(model)
optimizer = optim.Adam(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
for epoch in range(args.epochs):
    model.train()
    optimizer.zero_grad()
    output = model(features, edges, weights)
    loss_train = F.nll_loss(output[idx_train], labels[idx_train])
    acc_train = accuracy(output[idx_train], labels[idx_train])
    loss_train.backward()
    optimizer.step()
    if epoch % 20 == 0:
        print('Epoch: {:04d}'.format(epoch+1), 'loss_train: {:.4f}'.format(loss_train.item()),
              'acc_train: {:.4f}'.format(acc_train.item()))
model.eval()
acc_test = accuracy(model(features, edges, weights)[idx_test], labels[idx_test])
print("Test set accuracy= {:.4f}".format(acc_test.item()))
assert acc_test > 0.85
print("passed")
