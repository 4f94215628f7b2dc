// A finished frame as a drawing, painting or old photograph.
in vec2 uv;
uniform sampler2D picture;
uniform float levels, outline, canvas, saturation, sepia, contrast;
out vec4 colour;

float paper(vec2 p) { return fract(sin(dot(floor(p), vec2(12.9898, 78.233))) * 43758.5453) - 0.5; }

void main() {
    vec2 texel = 1.0 / vec2(textureSize(picture, 0));
    vec4 centre = texture(picture, uv);
    vec3 right = texture(picture, uv + vec2(texel.x, 0)).rgb, left = texture(picture, uv - vec2(texel.x, 0)).rgb;
    vec3 above = texture(picture, uv + vec2(0, texel.y)).rgb, below = texture(picture, uv - vec2(0, texel.y)).rgb;
    vec3 c = centre.rgb;
    if (levels > 0.0) { // flat tones, edges kept soft over one level's tenth
        vec3 steps = mix(c, 0.25 * (right + left + above + below), 0.5) * levels;
        c = (floor(steps) + smoothstep(0.4, 0.6, fract(steps))) / levels;
    }
    float edge = length(right - left) + length(above - below);
    c *= 1.0 - outline * smoothstep(0.12, 0.45, edge);
    float grey = dot(c, vec3(0.30, 0.59, 0.11));
    c = mix(vec3(grey), c, saturation);
    c = mix(c, grey * vec3(1.08, 0.92, 0.70) + vec3(0.05, 0.03, 0.0), sepia);
    c = (c - 0.5) * contrast + 0.5;
    vec2 pixel = uv / texel;
    c += canvas * (0.5 * sin(pixel.x * 1.57) * sin(pixel.y * 1.57) + 0.7 * paper(pixel));
    colour = vec4(clamp(c, 0.0, 1.0), centre.a);
}
