"""The three classes of MMPose's project RTMPose3D, wired anew from MMPose's own blocks.

The project is in no package, so tests cannot install it. What it adds to MMPose is wiring, which is described in the paper
and in our notes; its blocks (gated attention, scale norm, convolutions, the affine crop, the estimator) are MMPose's.
Whoever has the project on PYTHONPATH runs the tests with it instead of with this file."""
import numpy as np
import torch
from mmcv.cnn import ConvModule
from mmengine.structures import InstanceData
from mmpose.codecs.base import BaseKeypointCodec
from mmpose.codecs.utils import get_simcc_maximum
from mmpose.models.heads import BaseHead
from mmpose.models.pose_estimators import TopdownPoseEstimator
from mmpose.models.utils.rtmcc_block import RTMCCBlock, ScaleNorm
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.utils.tensor_utils import to_numpy
from torch import nn

RANGE,DISTANCE = 2.1744869,5.14388 # m


@KEYPOINT_CODECS.register_module()
class SimCC3DLabel(BaseKeypointCodec):
    instance_mapping_table = dict(bbox="bboxes", bbox_score="bbox_scores", bbox_scale="bbox_scales", root_z="root_z")
    label_mapping_table = {}

    def __init__(self, input_size, sigma, simcc_split_ratio, normalize, use_dark, root_index):
        super().__init__()
        self.input_size,self.ratio = input_size,simcc_split_ratio

    def encode(self, keypoints, keypoints_visible=None): return dict(root_z=[DISTANCE])

    def decode(self, x, y, z):
        x,y,z = (axis.reshape(-1, *axis.shape[-2:]) for axis in (x, y, z)) # (1, K, bins)
        places,scores = get_simcc_maximum(x, y)
        layers = np.where(scores<=0, -1, z.argmax(-1)).astype(np.float32)
        halves = np.concatenate([places, layers[..., None]], -1)/self.ratio
        points = halves.copy()
        points[..., 2] = (points[..., 2]/(self.input_size[2]/2)-1)*RANGE
        return points, halves, scores


@MODELS.register_module()
class RTMW3DHead(BaseHead):
    def __init__(self, in_channels, out_channels, input_size, in_featuremap_size, simcc_split_ratio, final_layer_kernel_size, gau_cfg, decoder):
        super().__init__()
        def unit(width_in, width_out):
            return ConvModule(width_in, width_out, final_layer_kernel_size, padding=final_layer_kernel_size//2, norm_cfg=dict(type="BN"), act_cfg=dict(type="ReLU"))
        cells,width = in_featuremap_size[0]*in_featuremap_size[1],gau_cfg["hidden_dims"]
        self.decoder = KEYPOINT_CODECS.build(decoder)
        self.conv_dec = unit(in_channels//4, in_channels//4)
        self.final_layer,self.final_layer2 = unit(in_channels, out_channels),unit(in_channels//4+in_channels//2, out_channels)
        self.mlp,self.mlp2 = (nn.Sequential(ScaleNorm(n), nn.Linear(n, width//2, bias=False)) for n in (cells, 4*cells))
        self.gau = RTMCCBlock(out_channels, width, width, s=gau_cfg["s"], expansion_factor=gau_cfg["expansion_factor"], attn_type="self-attn",
                              act_fn=gau_cfg["act_fn"], use_rel_bias=gau_cfg["use_rel_bias"], pos_enc=gau_cfg["pos_enc"])
        self.cls_x,self.cls_y,self.cls_z = (nn.Linear(width, int(side*simcc_split_ratio), bias=False) for side in input_size)

    def forward(self, feats):
        shallow,deep = feats
        fine = torch.cat([self.conv_dec(nn.functional.pixel_shuffle(deep, 2)), shallow], 1)
        tokens = torch.cat([self.mlp(self.final_layer(deep).flatten(2)), self.mlp2(self.final_layer2(fine).flatten(2))], 2)
        tokens = self.gau(tokens)
        return self.cls_x(tokens), self.cls_y(tokens), self.cls_z(tokens)

    def predict(self, feats, batch_data_samples, test_cfg=None):
        found = [self.decoder.decode(*one) for one in to_numpy(self.forward(feats), unzip=True)]
        return [InstanceData(keypoints=points, keypoints_simcc=halves, keypoint_scores=scores) for points,halves,scores in found]

    def loss(self, feats, batch_data_samples, train_cfg=None): raise AssertionError("nothing is taught here")


@MODELS.register_module()
class TopdownPoseEstimator3D(TopdownPoseEstimator):
    def add_pred_to_datasample(self, batch_pred_instances, batch_pred_fields, batch_data_samples):
        for found,sample in zip(batch_pred_instances, batch_data_samples):
            centre,scale,size = (sample.metainfo[f"input_{name}"] for name in ("center", "scale", "size"))
            found.transformed_keypoints = found.keypoints[..., :2]/size*scale+centre-scale/2
            z = found.keypoints[..., 2:]+np.asarray(sample.gt_instances.root_z).reshape(-1, 1, 1)
            middle = np.array(sample.ori_shape)/2 # Height before width: upstream's slip
            found.keypoints = np.concatenate([(found.transformed_keypoints-middle)/(1145.04940459, 1143.78109572)*z, z], -1)
            sample.pred_instances = found
        return batch_data_samples
