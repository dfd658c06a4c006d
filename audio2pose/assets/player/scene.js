// A dancer and the song, in one canvas. `mount(element, data)` builds everything inside `element`; nothing is loaded from anywhere.
// Two files are joined into one script: scene.js looks (camera, shaders, the two renderers), and player.js acts (bytes, kinematics,
// clock, controls, mount). Neither imports anything.

// ---- Camera ------------------------------------------------------------------------------------------------------------------

const subtract = (a, b) => a.map((x, i) => x - b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const normalise = v => v.map(x => x / Math.hypot(...v));

function multiply4(a, b) { // Column by column, as WebGL stores matrices
  const out = new Float32Array(16);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
  return out;
}

function lookAt(eye, target, up) {
  const z = normalise(subtract(eye, target)), x = normalise(cross(up, z)), y = cross(z, x);
  return new Float32Array([x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0, -dot(x, eye), -dot(y, eye), -dot(z, eye), 1]);
}

function perspective(angle, aspect, near, far) {
  const f = 1 / Math.tan(angle / 2);
  return new Float32Array([f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0]);
}

function orthographic(half, near, far) {
  return new Float32Array([1 / half, 0, 0, 0, 0, 1 / half, 0, 0, 0, 0, 2 / (near - far), 0, 0, 0, (far + near) / (near - far), 1]);
}

const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

const VIEWS = { front: [0, .05], side: [Math.PI / 2, .05], top: [0, 1.57] }; // Azimuth and elevation, rad: the stage faces +z

class Camera {
  constructor() {
    this.angle = 28 * Math.PI / 180;
    this.follow = true;
    this.centres = [];
    this.reset();
  }

  reset() {
    this.wanted = { azimuth: .38, elevation: .16, zoom: 1 };
    this.now ||= { ...this.wanted };
    this.viewed = null;
  }

  look(name) { // Towards one of VIEWS, the shorter way round
    const [azimuth, elevation] = VIEWS[name], turns = Math.round((this.wanted.azimuth - azimuth) / (2 * Math.PI));
    this.wanted = { azimuth: azimuth + 2 * Math.PI * turns, elevation, zoom: this.wanted.zoom };
    this.viewed = name;
  }

  orbit(dx, dy) {
    this.wanted.azimuth -= dx;
    this.wanted.elevation = clamp(this.wanted.elevation + dy, .02, 1.57); // Never under the floor, never over the top
    this.viewed = null;
  }

  zoomBy(factor) { this.wanted.zoom = clamp(this.wanted.zoom * factor, .3, 4); }

  // Glide towards where the hand has pulled it, or be there at once; true while it still moves.
  glide(seconds, atOnce = false) {
    const share = atOnce ? 1 : 1 - Math.exp(-14 * seconds);
    let moving = false;
    for (const key in this.wanted) {
      const gap = this.wanted[key] - this.now[key];
      if (gap === 0) continue;
      this.now[key] = atOnce || Math.abs(gap) < 1e-4 ? this.wanted[key] : this.now[key] + share * gap;
      moving = true;
    }
    return moving;
  }

  // The distance shows a dancer with both arms out, in a wide window and in a tall one. The lowest `inset` of the picture lies
  // under the controls, so the dancer is centred in the rest.
  view(path, ground, aspect, inset, index = 0) {
    if (this.follow || !this.centres[index]) this.centres[index] = path;
    const { azimuth, elevation, zoom } = this.now, half = Math.tan(this.angle / 2);
    const distance = zoom * Math.max(1.27 / (half * (1 - inset)), 1 / (half * aspect));
    const target = [this.centres[index][0], ground + .92, this.centres[index][2]];
    const eye = [Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation), Math.cos(azimuth) * Math.cos(elevation)].map((x, i) => target[i] + distance * x);
    const projection = perspective(this.angle, aspect, .1, 60);
    projection[9] = -inset;
    return { eye, target, matrix: multiply4(projection, lookAt(eye, target, [0, 1, 0])) };
  }
}

// ---- Shaders -----------------------------------------------------------------------------------------------------------------

const HEAD = `#version 300 es
precision highp float;
precision highp sampler2DShadow;
`;

// Four joints at most pull at a vertex, each with its weight ("linear blend skinning").
const SKIN = `
layout(location = 0) in vec3 vertex;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec3 colour;
layout(location = 3) in uvec4 joints;
layout(location = 4) in vec4 weights;
uniform vec4 bones[72]; // 24 matrices of three rows
uniform float scale;
vec3 carry(vec4 v) {
  vec3 sum = vec3(0.);
  for (int k = 0; k < 4; k++) {
    int row = 3*int(joints[k]);
    sum += weights[k]*vec3(dot(bones[row], v), dot(bones[row + 1], v), dot(bones[row + 2], v));
  }
  return sum/dot(weights, vec4(1.));
}
vec3 placed() { return carry(vec4(vertex*scale, 1.)); }
vec3 turned() { return carry(vec4(normal, 0.)); }
`;

// Where a processor draws, `Skinner` has carried the vertices already.
const SKINNED = `
layout(location = 0) in vec3 vertex;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec3 colour;
vec3 placed() { return vertex; }
vec3 turned() { return normal; }
`;

const DEPTH_VERTEX = `
uniform mat4 matrix;
void main() { gl_Position = matrix*vec4(placed(), 1.); }
`;

const DEPTH_FRAGMENT = HEAD + `void main() {}`;

// Seen through the floor from below: how close the body is to it, 1 where it touches.
const CONTACT_FRAGMENT = HEAD + `
out vec4 pixel;
void main() { pixel = vec4(pow(1. - gl_FragCoord.z, 3.)); }
`;

// `count` spots spread over a disc like the seeds of a sunflower, each in a line of its own: no pixel has to work out a sine.
function sunflower(count, line) {
  const spot = k => [Math.cos, Math.sin].map(f => (Math.sqrt((k + .5) / count) * f(2.39996 * k)).toFixed(4)).join();
  return Array.from({ length: count }, (_, k) => line.replace("SPOT", `vec2(${spot(k)})`)).join("\n");
}

// How much of the key light arrives: some looks into the shadow map, spread over a disc so that the edge is soft.
const shadow = looks => `
uniform sampler2DShadow shadowMap;
uniform mat4 shadowMatrix;
float lit(vec3 place, float softness) {
  vec3 s = (shadowMatrix*vec4(place, 1.)).xyz*.5 + .5;
  if (any(lessThan(s, vec3(0.))) || any(greaterThan(s, vec3(1.)))) return 1.;
  float sum = 0.;
  ${sunflower(looks, "sum += texture(shadowMap, vec3(s.xy + softness*SPOT, s.z));")}
  return sum/${looks}.;
}
vec3 toScreen(vec3 light) { // A film-like shoulder, then sRGB
  light = light*(2.51*light + .03)/(light*(2.43*light + .59) + .14);
  return pow(clamp(light, 0., 1.), vec3(1./2.2));
}
`;

const BODY_VERTEX = `
uniform mat4 matrix;
out vec3 place, facing, tint;
void main() {
  place = placed();
  facing = turned();
  tint = pow(colour, vec3(2.2));
  gl_Position = matrix*vec4(place, 1.);
}
`;

// Key, fill, sky and floor from below, and a rim from behind that cuts the figure out of the background.
const BODY_FRAGMENT = `
in vec3 place, facing, tint;
uniform vec3 eye, toKey, sky, bounce, rim;
uniform float ground;
out vec4 pixel;
void main() {
  vec3 n = normalize(facing), v = normalize(eye - place), h = normalize(v + toKey);
  float direct = lit(place + .012*n, .004);
  float key = clamp((dot(n, toKey) + .15)/1.15, 0., 1.)*direct;
  float fill = clamp(dot(n, normalize(vec3(.8, .2, .5))), 0., 1.);
  float nearFloor = mix(.55, 1., smoothstep(0., .5, place.y - ground)); // Less sky is seen from down there
  vec3 light = 1.9*key*vec3(1., .95, .88) + .32*fill*vec3(.75, .85, 1.) + nearFloor*mix(bounce, sky, .5 + .5*n.y);
  float edge = pow(1. - clamp(dot(n, v), 0., 1.), 3.)*smoothstep(-.3, .6, n.y + .4*abs(n.x));
  float gloss = pow(clamp(dot(n, h), 0., 1.), 28.)*direct;
  pixel = vec4(toScreen(.50*tint*light + .05*gloss + edge*rim), 1.);
}
`;

const GROUND_VERTEX = HEAD + `
uniform mat4 matrix;
uniform vec3 centre;
uniform float reach;
out vec3 place;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1)*2. - 1.;
  place = centre + vec3(corner.x, 0., corner.y)*reach;
  gl_Position = matrix*vec4(place, 1.);
}
`;

// Grid lines half a metre apart, one pixel thin at any distance; the cast shadow; and the darkness right under a foot: the nearer
// the body, the less light gets in. For that the contact map is read from its small copies (mipmaps), which are blurred already.
const GROUND_FRAGMENT = `
in vec3 place;
uniform sampler2D contactMap;
uniform mat4 contactMatrix;
uniform vec3 centre, dancer, floorColour, lineColour, glow;
uniform float reach, shade, pulse;
out vec4 pixel;
float lines(float cell, vec2 step) {
  vec2 x = place.xz/cell, width = max(step/cell, 1e-4);
  vec2 line = clamp(1. - abs(fract(x - .5) - .5)/width, 0., 1.);
  vec2 far = clamp(1. - 2.*width, 0., 1.); // Before lines merge into grey they vanish
  return max(line.x*far.x, line.y*far.y);
}
float contact() {
  vec2 c = (contactMatrix*vec4(place, 1.)).xy*.5 + .5;
  if (any(lessThan(c, vec2(0.))) || any(greaterThan(c, vec2(1.)))) return 0.;
  float sum = 0.;
  ${sunflower(8, "sum += textureLod(contactMap, c + .03*SPOT, 2.5).r;")}
  vec2 edge = smoothstep(0., .1, c)*smoothstep(1., .9, c);
  return edge.x*edge.y*sum/8.;
}
void main() {
  float away = length(place.xz - centre.xz)/reach, near = length(place.xz - dancer.xz);
  vec2 step = fwidth(place.xz); // From one pixel to the next
  vec3 colour = mix(floorColour, lineColour, .30*lines(.5, step) + .45*lines(2., step));
  float ring = near - 1. + .6*pulse;
  colour += glow*((1. + .5*pulse)*exp(-.55*near*near) + pulse*pulse*exp(-30.*ring*ring));
  float dark = 1. - (1. - shade*(1. - lit(place, .012)))*(1. - .75*contact());
  colour *= 1. - dark;
  pixel = vec4(colour, smoothstep(1., .12, away));
}
`;

const BACK_VERTEX = HEAD + `
out vec2 spot;
void main() { spot = vec2(gl_VertexID & 1, gl_VertexID >> 1)*4. - 1.; gl_Position = vec4(spot, 1., 1.); }
`;

const BACK_FRAGMENT = HEAD + `
in vec2 spot;
uniform vec3 backTop, backMiddle;
out vec4 pixel;
float grain(vec2 p) { return fract(52.9829189*fract(dot(p, vec2(.06711056, .00583715)))) - .5; } // Hides the steps of 8 bits
void main() {
  float away = length(spot*vec2(.75, .9) - vec2(0., .05));
  pixel = vec4(mix(backMiddle, backTop, smoothstep(0., 1.35, away)) + grain(gl_FragCoord.xy)/255., 1.);
}
`;

// Where hands and feet have been: ribbons that face the eye and fade.
const RIBBON_VERTEX = HEAD + `
layout(location = 0) in vec3 place;
layout(location = 1) in vec4 colour;
uniform mat4 matrix;
out vec4 tint;
void main() { tint = colour; gl_Position = matrix*vec4(place, 1.); }
`;

const RIBBON_FRAGMENT = HEAD + `
in vec4 tint;
out vec4 pixel;
void main() { pixel = tint; }
`;

const RIBBON_WIDTH = .022; // m, at the newest end

function ribbons(trails, eye) { // Triangles, seven numbers a corner: place, colour, how solid
  const out = [];
  for (const { colour, points } of trails) {
    const edges = points.map((point, k) => {
      const along = subtract(points[Math.max(k - 1, 0)], points[Math.min(k + 1, points.length - 1)]);
      if (Math.hypot(...along) < 1e-6) return [point, point];
      const fade = 1 - k / points.length, side = normalise(cross(along, subtract(eye, point)));
      return [1, -1].map(sign => point.map((x, i) => x + sign * .5 * RIBBON_WIDTH * fade * side[i]));
    });
    for (let k = 1; k < edges.length; k++) {
      const corner = (j, side) => out.push(...edges[j][side], ...colour, .85 * (1 - j / edges.length));
      corner(k - 1, 0); corner(k - 1, 1); corner(k, 0);
      corner(k - 1, 1); corner(k, 0); corner(k, 1);
    }
  }
  return new Float32Array(out);
}

const PALETTES = {
  light: {
    backTop: [.80, .82, .85], backMiddle: [.945, .95, .96], floorColour: [.85, .86, .875], lineColour: [.62, .65, .69], glow: [.075, .07, .065],
    sky: [.60, .65, .72], bounce: [.36, .34, .32], rim: [.16, .17, .18], shade: .42,
  },
  dark: {
    backTop: [.045, .05, .062], backMiddle: [.125, .14, .165], floorColour: [.105, .115, .135], lineColour: [.30, .33, .38], glow: [.085, .085, .09],
    sky: [.26, .31, .40], bounce: [.13, .12, .12], rim: [.42, .48, .60], shade: .62,
  },
};

// ---- Drawing with WebGL2 -----------------------------------------------------------------------------------------------------

// Does a processor do the work of a graphics card here? Then smooth edges and soft shadows cost what the motion needs.
let drawnBySoftware = null;
function bySoftware() {
  if (drawnBySoftware !== null) return drawnBySoftware;
  const gl = document.createElement("canvas").getContext("webgl2"), info = gl?.getExtension("WEBGL_debug_renderer_info");
  drawnBySoftware = /swiftshader|llvmpipe|software|basic render/i.test(info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "");
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return drawnBySoftware;
}

// Its vertex shader would blend bones again for every corner of every triangle of every pass. So there the bones are blended in plain
// loops, once for each vertex: three floats say where it is, and in the room of a fourth three bytes say where it faces.
class Skinner {
  constructor(body) {
    const weights = array(Uint8Array, body.weights), whole = i => weights[i] + weights[i + 1] + weights[i + 2] + weights[i + 3];
    this.rest = Float32Array.from(array(Int16Array, body.vertices), x => x / 32767 * body.scale);
    this.normals = Float32Array.from(array(Int8Array, body.normals), x => .98 * x); // A blend of rotations lengthens nothing, so they stay bytes
    this.rows = Uint16Array.from(array(Uint8Array, body.joints), joint => 12 * joint);
    this.weights = Float32Array.from(weights, (x, i) => x / whole(i - i % 4));
    this.places = new Float32Array(4 * this.rest.length / 3);
    this.facings = new Int8Array(this.places.buffer);
  }

  carry(bones) {
    const { rest, normals, rows, weights, places, facings } = this, m = new Float32Array(12);
    for (let v = 0; v < rest.length / 3; v++) {
      m.fill(0);
      for (let k = 4 * v; k < 4 * v + 4; k++) {
        const weight = weights[k], row = rows[k];
        if (weight) for (let i = 0; i < 12; i++) m[i] += weight * bones[row + i];
      }
      const i = 3 * v;
      for (let r = 0; r < 3; r++) {
        const a = m[4 * r], b = m[4 * r + 1], c = m[4 * r + 2];
        places[4 * v + r] = a * rest[i] + b * rest[i + 1] + c * rest[i + 2] + m[4 * r + 3];
        facings[16 * v + 12 + r] = a * normals[i] + b * normals[i + 1] + c * normals[i + 2];
      }
    }
    return places;
  }
}

// Triangles enough for a shadow that nobody looks at closely: vertices of one bone within `cell` metres become one.
function coarser(body, faces, cell) {
  const rest = Float32Array.from(array(Int16Array, body.vertices), x => Math.round(x / 32767 * body.scale / cell)), joints = bytes(body.joints);
  const kept = new Map(), out = [];
  const one = Uint32Array.from(rest.filter((_, i) => i % 3 === 0), (_, v) => {
    const key = [...rest.subarray(3 * v, 3 * v + 3), joints[4 * v]].join();
    if (!kept.has(key)) kept.set(key, v);
    return kept.get(key);
  });
  for (let i = 0; i < faces.length; i += 3) {
    const [a, b, c] = [0, 1, 2].map(k => one[faces[i + k]]);
    if (a !== b && b !== c && c !== a) out.push(a, b, c);
  }
  return Uint32Array.from(out);
}

// The skeleton as another body: a slender octahedron for each bone and a ball for each joint, each carried by one joint alone, so that
// light, shadows and floor treat it as they treat the skin.
const BONE = [.80, .80, .78], BALL = Array.from({ length: 7 }, (_, i) => Array.from({ length: 11 }, (_, k) => {
  const down = Math.PI * i / 6, round = 2 * Math.PI * k / 10;
  return [Math.sin(down) * Math.cos(round), Math.cos(down), Math.sin(down) * Math.sin(round)];
}));

class BoneBuilder {
  constructor() { Object.assign(this, { places: [], normals: [], colours: [], joints: [] }); }

  triangle(corners, normals, joint, colour) {
    corners.forEach((corner, i) => {
      this.places.push(...corner);
      this.normals.push(...normals[i]);
      this.colours.push(...colour);
      this.joints.push(joint, 0, 0, 0);
    });
  }

  ball(middle, radius, joint, colour) {
    const at = spot => middle.map((x, i) => x + radius * spot[i]);
    for (let i = 0; i < 6; i++) for (let k = 0; k < 10; k++) {
      const [a, b, c, d] = [BALL[i][k], BALL[i][k + 1], BALL[i + 1][k + 1], BALL[i + 1][k]];
      for (const spots of [[a, b, c], [a, c, d]]) this.triangle(spots.map(at), spots, joint, colour);
    }
  }

  bone(from, to, joint, colour) { // Thickest near its beginning, as animation programs draw it
    const along = subtract(to, from), size = Math.hypot(...along), axis = normalise(along);
    const side = normalise(cross(axis, Math.abs(axis[1]) < .9 ? [0, 1, 0] : [1, 0, 0])), other = cross(axis, side), width = Math.min(.026, .1 * size + .006);
    const ring = [[1, 0], [0, 1], [-1, 0], [0, -1]].map(([x, y]) => from.map((f, i) => f + .16 * along[i] + width * (x * side[i] + y * other[i])));
    ring.forEach((spot, k) => {
      const next = ring[(k + 1) % 4];
      for (const corners of [[from, next, spot], [spot, next, to]]) {
        const flat = normalise(cross(subtract(corners[1], corners[0]), subtract(corners[2], corners[0])));
        this.triangle(corners, [flat, flat, flat], joint, colour);
      }
    });
  }

  body() { // As Python's `body_data` packs the skin
    const count = this.places.length / 3, scale = Math.max(...this.places.map(Math.abs)), pack = (Type, values) => new Uint8Array(Type.from(values).buffer);
    return {
      scale, vertices: pack(Int16Array, this.places.map(x => Math.round(32767 * x / scale))), normals: pack(Int8Array, this.normals.map(x => Math.round(127 * x))),
      colours: pack(Uint8Array, this.colours.map(x => Math.round(255 * x))), joints: pack(Uint8Array, this.joints),
      weights: pack(Uint8Array, this.joints.map((_, i) => i % 4 ? 0 : 255)), faces: pack(Uint32Array, this.joints.slice(0, count).map((_, i) => i)),
    };
  }
}

function bonesBody(skeleton) {
  const rest = restJoints(skeleton), built = new BoneBuilder(), sideColour = x => x > .02 ? RED : x < -.02 ? BLUE : BONE;
  skeleton.parents.forEach((parent, j) => {
    if (j) built.bone(rest[parent], rest[j], parent, sideColour(rest[j][0]));
    built.ball(rest[j], .021, j, sideColour(rest[j][0]));
  });
  built.ball(rest[15].map((x, i) => x + [0, .09, .02][i]), .085, 15, BONE);
  return built.body();
}

class Program {
  constructor(gl, vertex, fragment) {
    this.gl = gl;
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
      this.log = (this.log || "") + (gl.getShaderInfoLog(shader) || "");
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(this.program) + this.log);
    this.uniforms = {};
    for (let i = 0; i < gl.getProgramParameter(this.program, gl.ACTIVE_UNIFORMS); i++) {
      const { name, type } = gl.getActiveUniform(this.program, i);
      this.uniforms[name.replace("[0]", "")] = { type, location: gl.getUniformLocation(this.program, name) };
    }
  }

  use(values) { // Sets the uniforms it knows and ignores the rest, so one object serves every program
    const gl = this.gl;
    gl.useProgram(this.program);
    for (const [name, { type, location }] of Object.entries(this.uniforms)) {
      const value = values[name];
      if (type === gl.FLOAT_MAT4) gl.uniformMatrix4fv(location, false, value);
      else if (type === gl.FLOAT_VEC4) gl.uniform4fv(location, value);
      else if (type === gl.FLOAT_VEC3) gl.uniform3fv(location, value);
      else if (type === gl.FLOAT) gl.uniform1f(location, value);
      else gl.uniform1i(location, value);
    }
  }
}

const KEY = normalise([-.42, .82, .5]); // Towards the key light: over the dancer's right shoulder, seen from the front
const CONTACT_HEIGHT = .45; // m, above which the floor does not notice a body

class SolidRenderer {
  constructor(canvas, data) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: !bySoftware(), alpha: false, powerPreference: "high-performance" });
    if (!this.gl) throw new Error("no WebGL2");
    this.skin = data.body;
    this.skeleton = data.skeleton;
    this.build();
    canvas.addEventListener("webglcontextlost", event => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => { this.build(); this.onrestore?.(); });
  }

  build() {
    const gl = this.gl, skin = HEAD + (bySoftware() ? SKINNED : SKIN), lit = HEAD + shadow(bySoftware() ? 4 : 16);
    this.programs = {
      depth: new Program(gl, skin + DEPTH_VERTEX, DEPTH_FRAGMENT), contact: new Program(gl, skin + DEPTH_VERTEX, CONTACT_FRAGMENT),
      body: new Program(gl, skin + BODY_VERTEX, lit + BODY_FRAGMENT), ground: new Program(gl, GROUND_VERTEX, lit + GROUND_FRAGMENT),
      back: new Program(gl, BACK_VERTEX, BACK_FRAGMENT), ribbon: new Program(gl, RIBBON_VERTEX, RIBBON_FRAGMENT),
    };
    this.empty = gl.createVertexArray();
    this.ribbon = this.ribbonArray();
    this.meshes = {};
    this.shadow = this.target(640, gl.DEPTH_COMPONENT24, gl.DEPTH_ATTACHMENT);
    this.contact = this.target(256, gl.R8, gl.COLOR_ATTACHMENT0);
  }

  loadMesh(body) {
    const gl = this.gl, mesh = gl.createVertexArray(), skinner = bySoftware() ? new Skinner(body) : null;
    gl.bindVertexArray(mesh);
    const columns = [["vertices", 3, gl.SHORT, true], ["normals", 3, gl.BYTE, true], ["colours", 3, gl.UNSIGNED_BYTE, true],
                     ["joints", 4, gl.UNSIGNED_BYTE, false], ["weights", 4, gl.UNSIGNED_BYTE, true]];
    columns.forEach(([name, size, type, normalised], slot) => {
      if (skinner && name !== "colours") return;
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, bytes(body[name]), gl.STATIC_DRAW);
      gl.enableVertexAttribArray(slot);
      if (name === "joints") gl.vertexAttribIPointer(slot, size, type, 0, 0);
      else gl.vertexAttribPointer(slot, size, type, normalised, 0, 0);
    });
    const carried = skinner && this.carriedColumns();
    const faces = array(Uint32Array, body.faces), few = skinner && body === this.skin ? coarser(body, faces, .03) : []; // Bones are few
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, Uint32Array.from([...faces, ...few]), gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    return { array: mesh, count: faces.length, few: few.length, skinner, carried, scale: body.scale };
  }

  carriedColumns() {
    const gl = this.gl, buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    [[gl.FLOAT, 0], [gl.BYTE, 12]].forEach(([type, offset], slot) => {
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, 3, type, true, 16, offset);
    });
    return buffer;
  }

  ribbonArray() {
    const gl = this.gl, array = gl.createVertexArray(), buffer = gl.createBuffer();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    [[0, 3, 0], [1, 4, 12]].forEach(([slot, size, offset]) => {
      gl.enableVertexAttribArray(slot);
      gl.vertexAttribPointer(slot, size, gl.FLOAT, false, 28, offset);
    });
    gl.bindVertexArray(null);
    return { array, buffer };
  }

  target(size, format, attachment) { // A square texture to draw into
    const gl = this.gl, texture = gl.createTexture(), frame = gl.createFramebuffer(), depth = attachment === gl.DEPTH_ATTACHMENT;
    const set = (key, value) => gl.texParameteri(gl.TEXTURE_2D, key, value);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texStorage2D(gl.TEXTURE_2D, depth ? 1 : Math.log2(size) + 1, format, size, size);
    set(gl.TEXTURE_MIN_FILTER, depth ? gl.LINEAR : gl.LINEAR_MIPMAP_LINEAR);
    set(gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    set(gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    set(gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    if (depth) set(gl.TEXTURE_COMPARE_MODE, gl.COMPARE_REF_TO_TEXTURE);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, attachment, gl.TEXTURE_2D, texture, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return { size, texture, frame };
  }

  // `pane` is the part of the canvas to draw into, in pixels; `shown`: { ground, trails, bones }, and `hurry`: nobody will look closely.
  draw(pose, view, ground, palette, pulse, pane, shown) {
    const gl = this.gl, [x, , z] = pose.positions[0];
    if (gl.isContextLost()) return;
    this.pane = pane;
    this.shown = shown;
    const { skinner, carried, scale } = this.mesh = shown.bones ? this.meshes.bones ||= this.loadMesh(bonesBody(this.skeleton)) : this.meshes.skin ||= this.loadMesh(this.skin);
    const middle = [x, ground + .8, z], lamp = KEY.map((k, i) => middle[i] + 5 * k);
    const shadowMatrix = multiply4(orthographic(2, 1, 9), lookAt(lamp, middle, [0, 1, 0]));
    const contactMatrix = multiply4(orthographic(1.6, 0, CONTACT_HEIGHT), lookAt([x, ground, z], [x, ground + 1, z], [0, 0, 1]));
    const values = {
      ...PALETTES[palette], bones: pose.matrices, scale, eye: view.eye, toKey: KEY, shadowMatrix, contactMatrix, shadowMap: 0,
      contactMap: 1, ground, pulse, dancer: [x, ground, z], centre: [view.target[0], ground, view.target[2]], reach: 11,
    };
    if (skinner) {
      gl.bindBuffer(gl.ARRAY_BUFFER, carried);
      gl.bufferData(gl.ARRAY_BUFFER, skinner.carry(pose.matrices), gl.STREAM_DRAW);
    }
    this.turn = !this.turn; // In a hurry a processor draws one of the two shadows in each frame: the other is 1/60 s old
    if (!shown.hurry || this.turn) this.drawShadow({ ...values, matrix: shadowMatrix });
    if (!shown.hurry || !this.turn) this.drawContact({ ...values, matrix: contactMatrix });
    this.drawScene({ ...values, matrix: view.matrix });
    if (shown.trails.length) this.drawRibbons(ribbons(shown.trails, view.eye), { matrix: view.matrix });
  }

  drawRibbons(corners, values) {
    const gl = this.gl;
    this.programs.ribbon.use(values);
    gl.bindVertexArray(this.ribbon.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.ribbon.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, corners, gl.DYNAMIC_DRAW);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthMask(false);
    gl.drawArrays(gl.TRIANGLES, 0, corners.length / 7);
    gl.depthMask(true);
    gl.disable(gl.BLEND);
  }

  drawBody(program, values, hurry = false) {
    const gl = this.gl, { array, count, few } = this.mesh;
    program.use(values);
    gl.bindVertexArray(array);
    gl.enable(gl.CULL_FACE); // The body is closed
    gl.drawElements(gl.TRIANGLES, hurry && few ? few : count, gl.UNSIGNED_INT, hurry && few ? 4 * count : 0);
    gl.disable(gl.CULL_FACE);
  }

  drawInto({ frame, size }, bits, program, values) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.viewport(0, 0, size, size);
    gl.clear(bits);
    this.drawBody(program, values, this.shown.hurry);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  drawShadow(values) {
    this.gl.enable(this.gl.DEPTH_TEST);
    this.drawInto(this.shadow, this.gl.DEPTH_BUFFER_BIT, this.programs.depth, values);
  }

  drawContact(values) { // The largest closeness wins, in whatever order the triangles come
    const gl = this.gl;
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendEquation(gl.MAX);
    gl.clearColor(0, 0, 0, 0);
    this.drawInto(this.contact, gl.COLOR_BUFFER_BIT, this.programs.contact, values);
    gl.blendEquation(gl.FUNC_ADD);
    gl.disable(gl.BLEND);
    gl.enable(gl.DEPTH_TEST);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.contact.texture);
    gl.generateMipmap(gl.TEXTURE_2D);
  }

  drawScene(values) {
    const gl = this.gl;
    [this.shadow, this.contact].forEach(({ texture }, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
    });
    gl.viewport(...this.pane);
    gl.scissor(...this.pane);
    gl.enable(gl.SCISSOR_TEST);
    gl.clear(gl.DEPTH_BUFFER_BIT);
    gl.disable(gl.SCISSOR_TEST);
    this.drawBody(this.programs.body, values);
    gl.bindVertexArray(this.empty);
    gl.depthFunc(gl.LEQUAL);
    gl.depthMask(false); // Background and floor only fill what the body leaves free
    this.programs.back.use(values);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    if (this.shown.ground) {
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
      this.programs.ground.use(values);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
      gl.disable(gl.BLEND);
    }
    gl.depthMask(true);
  }
}

// ---- Drawing without ---------------------------------------------------------------------------------------------------------

class StickRenderer {
  constructor(canvas, data) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.parents = data.skeleton.parents;
  }

  draw(pose, view, ground, palette, pulse, pane, shown) {
    const { pen } = this, [left, bottom, width, height] = pane, top = this.canvas.height - bottom - height, m = view.matrix;
    const project = ([x, y, z]) => {
      const [a, b, , w] = [0, 1, 2, 3].map(r => m[r] * x + m[4 + r] * y + m[8 + r] * z + m[12 + r]);
      return [left + (a / w + 1) * width / 2, top + (1 - b / w) * height / 2];
    };
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    const path = (from, to) => { pen.beginPath(); pen.moveTo(...project(from)); pen.lineTo(...project(to)); pen.stroke(); };
    const dark = palette === "dark", [x, , z] = pose.positions[0];
    pen.fillStyle = dark ? "#1b1f26" : "#eef0f2";
    pen.fillRect(left, top, width, height);
    pen.lineCap = "round";
    pen.lineWidth = height / 700;
    pen.strokeStyle = dark ? "#454d59" : "#b3bac4";
    for (let k = -4; shown.ground && k <= 4; k++) {
      path([x - 2, ground, z + k / 2], [x + 2, ground, z + k / 2]);
      path([x + k / 2, ground, z - 2], [x + k / 2, ground, z + 2]);
    }
    pen.lineWidth = height / 140;
    for (const { colour, points } of shown.trails) {
      pen.strokeStyle = `rgb(${colour.map(x => Math.round(255 * x))})`;
      points.forEach((point, k) => { if (k) path(points[k - 1], point); });
    }
    pen.lineWidth = height / 70;
    pen.strokeStyle = dark ? "#ff9d5c" : "#c2410c";
    this.parents.forEach((parent, j) => { if (j) path(pose.positions[parent], pose.positions[j]); });
    pen.beginPath();
    pen.arc(...project(pose.positions[15]), height / 45, 0, 7);
    pen.stroke();
    pen.restore();
  }
}

function renderer(canvas, data, note) {
  try { return new SolidRenderer(canvas, data); }
  catch (error) {
    note.textContent = "This browser offers no WebGL 2, so the dancer is a stick figure. Turn on hardware acceleration, or try another browser.";
    return new StickRenderer(canvas, data);
  }
}
