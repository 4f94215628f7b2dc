// A drawn person. Compiled once per MATERIAL (rig.Material), so that software rasterisers run only what a surface needs.
// Colours are linear light. T is the place on the template head, in metres: eyes at z = 0.736, mouth 0.669, chin 0.62.
in vec3 world, facing, T;
in vec4 trait;
in vec2 field, map_place;
in vec3 diffuse_light, gleam_light;

uniform vec3 hair, brow, iris, cloth, cloth_second, teeth, gaze;
uniform float seed, iris_size, strands, collar, lower_lashes;
uniform float open_lashes; // 0: the skin has its own, they only show on shut eyes
uniform vec2 blink;
uniform int cloth_pattern;
uniform sampler3D noise;
uniform sampler2D paint_map, growth_map; // painted by paint.frag

out vec4 colour;

vec3 noise_at(vec3 texels) { return texture(noise, (texels + seed * 7.3) / 32.0).rgb - 0.5; }

vec3 shade(vec3 albedo, vec3 n, float visible, float shine, float sharpness, vec3 wrap) {
    vec3 diffuse, gleam;
    illuminate(world, n, visible, sharpness, wrap, diffuse, gleam);
    return albedo * diffuse + shine * gleam;
}

void emit(vec3 light) { colour = vec4(sqrt(1.25 * light / (0.55 + light)), 1.0); } // highlights roll off; gamma 2

#if MATERIAL == 7 || HAIRY
// Hair falls from the crown; the strands lean the tangent.
vec3 hair_shade(vec3 n, float visible, float strand, float lock) {
    vec3 flow = normalize(T - vec3(0.012, 0.0, 0.93));
    vec3 tangent = normalize(flow - n * dot(flow, n) + 0.35 * n * strand);
    vec3 half_way = normalize(key_direction + normalize(camera - world));
    float along = dot(tangent, half_way);
    float sheen = pow(max(1.0 - along * along, 0.0), 24.0) * max(dot(n, key_direction) + 0.35, 0.0);
    vec3 albedo = hair * (1.0 + 0.9 * strand + 0.25 * lock);
    return shade(albedo, n, visible, 0.0, 1.0, vec3(0.25)) + sheen * key_colour * (0.05 + 0.35 * hair) * (0.6 + strand);
}
#endif

#if MATERIAL == 0
void main() {
    vec4 paint = texture(paint_map, map_place);
    float within = smoothstep(0.3, 0.7, trait.z); // the mouth
    vec3 albedo = mix(paint.rgb * paint.rgb, vec3(0.22, 0.045, 0.04) * max(trait.w, 0.3), within);
    vec3 light = albedo * diffuse_light + mix(paint.a, 0.03, within) * gleam_light;
#if HAIRY
    vec3 growth = texture(growth_map, map_place).rgb;
    light = mix(light, hair_shade(normalize(facing), trait.w, 2.0 * growth.r - 1.0, growth.g - 0.5), growth.b);
#endif
    emit(light);
}

#elif MATERIAL == 1 || MATERIAL == 2
void main() {
    vec3 centre = vec3(MATERIAL == 1 ? 0.0313 : -0.0313, -0.1168, 0.7363);
    float angle = acos(clamp(dot(normalize(T - centre), gaze), -1.0, 1.0));
    vec3 white = mix(vec3(0.80, 0.76, 0.72), vec3(0.70, 0.42, 0.38), 0.35 * smoothstep(0.5, 1.1, angle));
    float inside = smoothstep(iris_size + 0.05, iris_size - 0.05, angle);
    float fibre = noise_at(T * 1500.0).r;
    vec3 ring = iris * (1.0 + 0.9 * fibre) * mix(1.5, 0.45, smoothstep(iris_size * 0.5, iris_size, angle));
    vec3 albedo = mix(white, ring, inside) * smoothstep(iris_size * 0.36, iris_size * 0.50, angle);
    float lid = 0.45 + 0.55 * smoothstep(0.7475, 0.737, T.z);
    vec3 n = normalize(facing);
    vec3 light = shade(albedo, n, lid * mix(0.6, 1.0, trait.w), 0.25, 30.0, vec3(0.25));
    vec3 view = normalize(camera - world);
    float glint = pow(max(dot(normalize(n + 0.25 * normalize(T - centre)), normalize(key_direction + 1.4 * view)), 0.0), 260.0);
    emit(light + 1.2 * glint * key_colour * lid);
}

#elif MATERIAL == 3
void main() {
    float arch = atan(T.x, -(T.y + 0.095)), gap = abs(fract(arch / 0.205 + 0.5) - 0.5) * 2.0;
    float gum = smoothstep(0.0035, 0.0055, abs(T.z - 0.6645) - 0.004 + 0.0015 * gap * gap);
    vec3 albedo = mix(teeth * (0.80 + 0.20 * smoothstep(0.0, 0.22, gap)), vec3(0.42, 0.13, 0.12), 0.8 * gum);
    emit(shade(albedo, normalize(facing), mix(0.35, 1.0, trait.w) * mix(1.0, 0.12, max(smoothstep(-0.131, -0.114, T.y), smoothstep(0.013, 0.022, abs(T.x)))), 0.35, 40.0, vec3(0.4)));
}

#elif MATERIAL == 4
void main() {
    vec3 bumps = noise_at(T * 300.0);
    vec3 albedo = vec3(0.46, 0.15, 0.14) * (1.0 + 0.3 * bumps.r) * (1.0 - 0.3 * exp(-pow(T.x / 0.003, 2.0)));
    emit(shade(albedo, normalize(normalize(facing) + 0.3 * bumps), trait.w, 0.25, 25.0, vec3(0.3)));
}

#elif MATERIAL == 5
void main() {
    emit(brow * 0.35 * (sky + 0.3 * key_colour));
    float shut = T.x > 0.0 ? blink.x : blink.y;
    colour.a = (T.z > 0.736 ? 0.75 : lower_lashes) * mix(open_lashes, 1.0, shut); // coverage
}

#elif MATERIAL == 6
void main() {
    float ax = abs(T.x), neckline = 0.585 + collar - 0.9 * max(0.0, 0.085 - ax) * step(T.y, 0.0) * step(collar, 0.02);
    if (T.z > neckline) discard;
    vec3 weave = noise_at(T * 500.0), fold = noise_at(T * 45.0);
    vec3 albedo = cloth;
    if (cloth_pattern == 1) albedo = mix(cloth, cloth_second, step(0.5, fract(T.z * 45.0)));
    if (cloth_pattern == 2) albedo = mix(cloth, cloth_second, smoothstep(0.05, 0.12, fold.r));
    if (cloth_pattern == 3) albedo = mix(cloth, cloth_second, smoothstep(neckline - 0.012, neckline - 0.010, T.z));
    albedo *= 1.0 + 0.25 * weave.r;
    emit(shade(albedo, normalize(normalize(facing) + 0.25 * fold), 0.5 + 0.5 * trait.w, 0.03, 8.0, vec3(0.1)));
}

#else
void main() {
    if (field.x < 0.0) discard;
    vec2 around = normalize(T.xy + vec2(0.0, 0.02));
    vec3 lock = noise_at(vec3(around * 9.0, T.z * 12.0));
    float strand = noise_at(vec3(around * 26.0 * strands, T.z * 40.0)).r + 0.6 * lock.g;
    vec3 n = normalize(facing);
    bool outside = dot(n, camera - world) > 0.0;
    emit(hair_shade(outside ? n : -n, outside ? 0.9 : 0.35, strand, lock.b));
}
#endif
